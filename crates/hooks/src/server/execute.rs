//! `POST /execute`: the JSON form, as clients of the first version know it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;

use super::{Answer, Refused, json, shop::Shop};
use crate::{
    run::{self, End},
    wire::{self, EXECUTE_LIMIT, EXECUTE_STDOUT, Executed, STDERR_KEPT},
};

pub(super) async fn answer(shop: &Arc<Shop>, request: Request<Incoming>) -> Result<Response<Answer>, Refused> {
    let length = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    let announced: usize = length.unwrap_or_default();
    if announced > EXECUTE_LIMIT {
        return Err(Refused::TooLarge(EXECUTE_LIMIT));
    }
    let body = match Limited::new(request.into_body(), EXECUTE_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => return Err(Refused::TooLarge(EXECUTE_LIMIT)),
        Err(error) => return Err(Refused::Bad(format!("the request is incomplete: {error}"))),
    };
    let mut asked: wire::Request = serde_json::from_slice(&body)
        .map_err(|error| Refused::Bad(format!("the request is not the JSON that is expected: {error}")))?;
    drop(body);
    let stdin = std::mem::take(&mut asked.stdin);
    let stdin = wire::decode(&stdin).ok_or_else(|| Refused::Bad("stdin is not base64".to_owned()))?;

    let mut limits = shop.settings.limits;
    limits.stdin = u64::MAX;
    limits.stdout = limits.stdout.min(EXECUTE_STDOUT);
    let job = shop.admit(asked, limits).await?;
    let mut run = run::start(job, Full::new(Bytes::from(stdin)), &shop.runs, &shop.stop)?;
    let mut stdout = Vec::new();
    while let Some(bytes) = run.output.recv().await {
        stdout.extend_from_slice(&bytes);
    }
    let finished = run
        .finished
        .await
        .map_err(|_| Refused::Unable(std::io::Error::other("the run was lost")))?;
    let mut stderr = finished.stderr.last(STDERR_KEPT);
    let answer = match finished.end {
        End::Exited(code) => Executed {
            exit_code: i32::from(code),
            ..Executed::default()
        },
        end => {
            if stderr.last().is_some_and(|last| *last != b'\n') {
                stderr.push(b'\n');
            }
            stderr.extend_from_slice(format!("{end}\n").as_bytes());
            Executed {
                exit_code: -1,
                end: Some(end.word()),
                message: Some(end.to_string()),
                ..Executed::default()
            }
        }
    };
    let answer = Executed {
        stdout: wire::encode(&stdout),
        stderr: wire::encode(&stderr),
        ..answer
    };
    drop(run.guard);
    let text = serde_json::to_vec(&answer).map_err(|error| Refused::Unable(error.into()))?;
    Ok(json(Bytes::from(text)))
}
