use jiff::Timestamp;
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::egress::EgressPolicy;

fn status(code: u16) -> Failure {
    Failure::Status { code, wait: None }
}

#[rstest]
#[case(408, Category::Transient)]
#[case(425, Category::Transient)]
#[case(429, Category::Transient)]
#[case(500, Category::Transient)]
#[case(503, Category::Transient)]
#[case(599, Category::Transient)]
#[case(400, Category::Permanent)]
#[case(401, Category::Permanent)]
#[case(403, Category::Permanent)]
#[case(404, Category::Permanent)]
#[case(405, Category::Permanent)]
#[case(410, Category::Permanent)]
#[case(300, Category::Permanent)]
#[case(204, Category::Permanent)]
fn a_status_code(#[case] code: u16, #[case] category: Category) {
    assert_eq!(status(code).category(), category);
    assert!(status(code).to_string().contains(&code.to_string()));
}

fn denied() -> Refusal {
    let denied = EgressPolicy::default().address("h.example", "127.0.0.1".parse().unwrap());
    denied.unwrap_err().refuse()
}

#[rstest]
#[case(Failure::Io(Cause::Timeout), Category::Transient, "FetchFailed")]
#[case(Failure::Io(Cause::Refused), Category::Transient, "FetchFailed")]
#[case(Failure::Io(Cause::Dns), Category::Transient, "FetchFailed")]
#[case(Failure::Io(Cause::Truncated), Category::Transient, "FetchFailed")]
#[case(Failure::Io(Cause::Tls), Category::Permanent, "PermanentError")]
#[case(status(401), Category::Permanent, "PermanentError")]
#[case(status(404), Category::Permanent, "PermanentError")]
#[case(Failure::Status { code: 429, wait: Some(Duration::from_secs(3)) }, Category::RateLimited, "RateLimited")]
#[case(Failure::Refused(denied()), Category::Configuration, "AccessDenied")]
#[case(Failure::Refused(Reason::ConfigurationError.refuse("x")), Category::Configuration, "ConfigurationError")]
#[case(Failure::Payload(Reason::SizeLimitExceeded.refuse("x")), Category::Permanent, "SizeLimitExceeded")]
#[case(Failure::Hook { name: "h".into(), cause: HookCause::Exit(404), retries: None }, Category::Hook, "HookFailed")]
#[case(Failure::Hook { name: "h".into(), cause: HookCause::Output, retries: None }, Category::Hook, "SizeLimitExceeded")]
#[case(Failure::Hook { name: "h".into(), cause: HookCause::Timeout, retries: Some(3) }, Category::Hook, "MaxRetriesExceeded")]
#[case(Failure::Hook { name: "h".into(), cause: HookCause::Unreachable, retries: Some(3) }, Category::Transient, "HookFailed")]
#[case(Failure::Storage(StorageCause::NoSpace), Category::Storage, "StorageOperationFailed")]
fn a_failure(#[case] failure: Failure, #[case] category: Category, #[case] reason: &str) {
    assert_eq!((failure.category(), failure.reason()), (category, reason));
}

#[rstest]
#[case(status(500), 1, Next::In(Duration::from_secs(1)))]
#[case(status(500), 2, Next::In(Duration::from_secs(2)))]
#[case(status(500), 9, Next::In(Duration::from_secs(256)))]
#[case(status(500), 10, Next::GivenUp)]
#[case(status(500), u32::MAX, Next::GivenUp)]
#[case(Failure::Storage(StorageCause::Unavailable), 3, Next::In(Duration::from_secs(4)))]
#[case(status(404), 1, Next::AtInterval)]
#[case(Failure::Refused(Reason::ConfigurationError.refuse("x")), 1, Next::OnChange)]
#[case(Failure::Hook { name: "h".into(), cause: HookCause::Timeout, retries: None }, 1, Next::AtInterval)]
#[case(Failure::Hook { name: "h".into(), cause: HookCause::Timeout, retries: Some(0) }, 1, Next::GivenUp)]
#[case(Failure::Hook { name: "h".into(), cause: HookCause::Unreachable, retries: None }, 1, Next::In(Duration::from_secs(1)))]
fn what_follows(#[case] failure: Failure, #[case] failures: u32, #[case] expected: Next) {
    assert_eq!(failure.next(failures, &Backoff::default(), Chance::new(0.5)), expected);
}

#[test]
fn nobody_waits_longer_than_five_minutes() {
    let patient = Backoff {
        attempts: 100,
        ..Backoff::default()
    };
    assert_eq!(
        status(500).next(50, &patient, Chance::new(0.99)),
        Next::In(Duration::from_mins(5))
    );
}

const NOW: &str = "2026-11-25T12:00:00Z";

#[rstest]
#[case::seconds(429, Headers { retry_after: Some("120"), ..Headers::default() }, Some(120))]
#[case::blanks(503, Headers { retry_after: Some(" 7 "), ..Headers::default() }, Some(7))]
#[case::a_fraction(429, Headers { retry_after: Some("1.5"), ..Headers::default() }, Some(2))]
#[case::nothing(429, Headers { retry_after: Some("0"), ..Headers::default() }, Some(1))]
#[case::bounded(429, Headers { retry_after: Some("86400"), ..Headers::default() }, Some(3600))]
#[case::absurd(429, Headers { retry_after: Some("99999999999999999999999"), ..Headers::default() }, Some(3600))]
#[case::negative(429, Headers { retry_after: Some("-5"), ..Headers::default() }, None)]
#[case::words(429, Headers { retry_after: Some("soon"), ..Headers::default() }, None)]
#[case::imf_date(503, Headers { retry_after: Some("Wed, 25 Nov 2026 12:00:30 GMT"), ..Headers::default() }, Some(30))]
#[case::rfc850_date(503, Headers { retry_after: Some("Wednesday, 25-Nov-26 12:00:30 GMT"), ..Headers::default() }, Some(30))]
#[case::asctime(503, Headers { retry_after: Some("Wed Nov 25 12:00:30 2026"), ..Headers::default() }, Some(30))]
#[case::a_date_passed(503, Headers { retry_after: Some("Wed, 25 Nov 2026 11:00:00 GMT"), ..Headers::default() }, Some(1))]
#[case::other_code(500, Headers { retry_after: Some("3"), ..Headers::default() }, None)]
#[case::success(200, Headers { x_rate_limit_reset: Some("3"), ..Headers::default() }, None)]
#[case::github(403, Headers { x_rate_limit_reset: Some("1795608060"), remaining: Some("0"), ..Headers::default() }, Some(60))]
#[case::forbidden(403, Headers { x_rate_limit_reset: Some("1795608060"), remaining: Some("7"), ..Headers::default() }, None)]
#[case::secondary_limit(403, Headers { retry_after: Some("60"), ..Headers::default() }, Some(60))]
#[case::milliseconds(429, Headers { x_rate_limit_reset: Some("1795608060000"), ..Headers::default() }, Some(60))]
#[case::delta(429, Headers { x_rate_limit_reset: Some("45"), ..Headers::default() }, Some(45))]
#[case::reset(429, Headers { rate_limit_reset: Some("45"), x_rate_limit_reset: Some("9"), ..Headers::default() }, Some(45))]
#[case::not_spent(429, Headers { rate_limit_reset: Some("45"), remaining: Some("3"), ..Headers::default() }, None)]
#[case::old_draft(429, Headers { rate_limit: Some("limit=10, remaining=0, reset=5"), ..Headers::default() }, Some(5))]
#[case::draft(429, Headers { rate_limit: Some("\"burst\";r=0;t=5, \"day\";r=0;t=90"), ..Headers::default() }, Some(90))]
#[case::one_spent(429, Headers { rate_limit: Some("\"burst\";r=0;t=5, \"day\";r=8;t=90"), ..Headers::default() }, Some(5))]
#[case::first_wins(429, Headers { retry_after: Some("2"), rate_limit_reset: Some("45"), ..Headers::default() }, Some(2))]
#[case::none(429, Headers::default(), None)]
fn a_wait(#[case] code: u16, #[case] headers: Headers<'_>, #[case] expected: Option<u64>) {
    let now: Timestamp = NOW.parse().unwrap();
    assert_eq!(asked(code, headers, now), expected.map(Duration::from_secs));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_delay_grows_and_stays_within_its_bounds(failures in 1_u32..60, chance in 0.0_f64..1.0) {
        let backoff = Backoff::default();
        let plain = backoff.delay(failures, Chance::new(0.5));
        let delay = backoff.delay(failures, Chance::new(chance));
        prop_assert!(delay <= backoff.max && delay.as_secs_f64() >= plain.as_secs_f64() * 0.75 - 1e-9);
        prop_assert!(backoff.delay(failures + 1, Chance::new(0.5)) >= plain);
    }

    #[test]
    fn nothing_that_upstream_says_makes_us_wait_for_ever(
        code in 400_u16..600, a in "[ -~]{0,30}", b in "[0-9]{0,25}", c in "[a-z0-9=;, \"]{0,40}", chance in 0.0_f64..1.0,
    ) {
        let headers = Headers { retry_after: Some(&a), rate_limit: Some(&c), rate_limit_reset: Some(&b), x_rate_limit_reset: Some(&b), remaining: None };
        let now: Timestamp = NOW.parse().unwrap();
        if let Some(wait) = asked(code, headers, now) {
            prop_assert!((Duration::from_secs(1)..=LONGEST_WAIT).contains(&wait));
            let backoff = Backoff::default();
            let next = Failure::Status { code, wait: Some(wait) }.next(1, &backoff, Chance::new(chance));
            let least = wait.min(backoff.patience);
            prop_assert!(matches!(next, Next::In(time) if (least..=backoff.patience).contains(&time)));
        }
    }
}
