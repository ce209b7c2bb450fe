//! Answers that do not end, do not come, lead elsewhere, or say no.

use serde_json::json;

use super::{Case, SECRET, Then, prove, site};
use crate::wire::{answers, falls_silent, pours, says};

/// A redirect.
fn leads(to: &str) -> crate::wire::Act {
    answers("302 Found", &format!("location: {to}\r\n"), b"")
}

/// Each is told for what it is; the limits of size and time hold; a cut in the middle of a body is got over.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_answer_can_do_wrong_is_told_and_changes_nothing_else() {
    let site = site("hostile-answers").await;
    let open = "HTTP/1.1 200 OK\r\ncontent-type: application/yaml\r\n";
    let body = format!("{open}connection: close\r\n\r\n");
    let mut cases = vec![
        Case::new(
            "endless-body",
            pours(&body, vec![b'#'; 8192]),
            "SizeLimitExceeded",
            "URL: the body has more bytes, more than the limit of 65536 bytes",
            Then::Interval,
        ),
        Case::new(
            "announced-body",
            falls_silent(&format!("{open}content-length: 65537\r\n\r\n#")),
            "SizeLimitExceeded",
            "URL: the body is announced with 65537 bytes, more than the limit of 65536 bytes",
            Then::Interval,
        ),
        Case::new(
            "slow-body",
            falls_silent(&format!("{open}content-length: 9\r\n\r\n#")),
            "FetchFailed",
            "URL: the next piece of the body took longer than 2 s",
            Then::Again,
        ),
        Case::new(
            "cut-body",
            says(format!("{open}content-length: 900\r\n\r\n# the first")),
            "FetchFailed",
            "URL: the body was cut off after 11 bytes…",
            Then::Again,
        ),
        Case::new(
            "endless-headers",
            pours(open, b"x-more: of the same\r\n".as_slice()),
            "FetchFailed",
            "URL: the answer is not HTTP…",
            Then::Again,
        ),
        Case::new(
            "no-headers",
            falls_silent(""),
            "FetchFailed",
            "URL: the answer took longer than 4 s",
            Then::Again,
        ),
        Case::new(
            "no-answer",
            says(""),
            "FetchFailed",
            "URL: the connection broke before an answer…",
            Then::Again,
        ),
        Case::new(
            "no-http",
            says("220 mail.example ESMTP\r\n"),
            "FetchFailed",
            "URL: the answer is not HTTP…",
            Then::Again,
        ),
        Case::new(
            "unavailable",
            answers("503 Service Unavailable", "", SECRET.as_bytes()),
            "FetchFailed",
            "URL answered 503",
            Then::Again,
        ),
        Case::new(
            "throttled",
            answers("429 Too Many Requests", "retry-after: 1\r\n", b""),
            "RateLimited",
            "URL answered 429",
            Then::Again,
        ),
        Case::new(
            "gone",
            answers("404 Not Found", "", SECRET.as_bytes()),
            "PermanentError",
            "URL answered 404",
            Then::Interval,
        ),
    ];
    let mut drip = Case::new(
        "long-body",
        pours(&body, b"".as_slice()),
        "FetchFailed",
        "URL: the whole request took longer than 1 s",
        Then::Again,
    );
    drip.bad = falls_silent(&body);
    drip.http = json!({ "timeout": "1s" });
    cases.push(drip);
    prove(&site, cases).await;
}

/// A redirect is followed only where the link itself would be, not for ever, and takes no password along.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_leads_nowhere_that_a_link_would_not() {
    let site = site("hostile-redirects").await;
    let cases = vec![
        Case::new(
            "loop",
            leads(&format!("/app.yaml?token={SECRET}")),
            "PermanentError",
            "URL redirects to URL: more than 10 redirects",
            Then::Interval,
        ),
        Case::new(
            "redirect-to-metadata",
            leads(&format!("http://169.254.169.254/latest/meta-data?{SECRET}")),
            "AccessDenied",
            "URL redirects to http://169.254.169.254/, which may not be reached: the egress policy denies metadata \
             addresses (169.254.169.254/32), where 169.254.169.254 is; hint: name another upstream; such addresses are \
             no place for sources",
            Then::Interval,
        ),
        Case::new(
            "redirect-to-a-name",
            leads("http://inside.test/"),
            "AccessDenied",
            "URL redirects to http://inside.test/, which may not be reached: the egress policy denies loopback addresses \
             (127.0.0.0/8), where inside.test leads; hint: the operator allows it with --egress-trust-host inside.test \
             (chart: egress.trustHosts), or a narrower range with --egress-allow-cidr (chart: egress.allowCIDRs)",
            Then::Interval,
        ),
        Case::new(
            "redirect-with-password",
            leads(&format!("http://user:{SECRET}@upstream.test/")),
            "PermanentError",
            "URL redirects: it holds a user name or password; credentials belong into a header",
            Then::Interval,
        ),
        Case::new(
            "redirect-to-a-file",
            leads("file:///etc/passwd"),
            "PermanentError",
            "URL redirects: its scheme is neither http nor https",
            Then::Interval,
        ),
    ];
    prove(&site, cases).await;
}
