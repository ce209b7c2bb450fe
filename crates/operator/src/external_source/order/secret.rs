//! What a spec reads of Secrets. Every refusal names Secret and key, never a value.

use k8s_openapi::api::core::v1::Secret;
use secrecy::SecretString;
use trellis_core::Refusal;
use trellis_fetch::{Link, Proxy, Via};

use super::{Secrets, refused, wrong};

pub(super) fn via(secrets: &Secrets, field: &str, name: &str) -> Result<Via, Refusal> {
    let read = |key: &str| {
        let bytes = value(secrets, field, name, key)?;
        text(field, name, key, &bytes)
    };
    let address = read("address")?;
    let proxy = match (read("username"), read("password")) {
        (Ok(user), Ok(password)) => {
            let address = secrecy::ExposeSecret::expose_secret(&address).trim().to_owned();
            let link = Link::parse(&address).map_err(|error| wrong(field, error.to_string()))?;
            Proxy::with_credentials(link, secrecy::ExposeSecret::expose_secret(&user).trim(), &password)
        }
        _ => Proxy::parse(&address),
    };
    Ok(Via::Proxy(proxy.map_err(refused(field))?))
}

pub(super) fn secret<'a>(secrets: &'a Secrets, field: &str, name: &str) -> Result<&'a Secret, Refusal> {
    let found = secrets.get(name).and_then(Option::as_deref);
    found.ok_or_else(|| {
        wrong(
            field,
            format!("there is no Secret {name} in the namespace of the source"),
        )
        .hint("create it")
    })
}

pub(super) fn value(secrets: &Secrets, field: &str, name: &str, key: &str) -> Result<Vec<u8>, Refusal> {
    let data = secret(secrets, field, name)?.data.as_ref();
    let found = data.and_then(|data| data.get(key)).map(|value| value.0.clone());
    found.ok_or_else(|| wrong(field, format!("Secret {name} has no key {key}")).hint("add the key"))
}

pub(super) fn text(field: &str, name: &str, key: &str, bytes: &[u8]) -> Result<SecretString, Refusal> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| wrong(field, format!("key {key} of Secret {name} is no text")))?;
    Ok(text.to_owned().into())
}
