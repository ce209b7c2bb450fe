//! The S3 type against an S3 server that checks signatures. s3s-fs 0.14.1 does not look at `If-None-Match`: that part is
//! added in front of it, as S3 documents it for `GetObject` (304 when the entity tag is the same).

use rstest::rstest;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use trellis_fetch::{Error, Fetched, Generator, Generators, Link, Order, S3Key, S3Object, Source, Trust, Via};

use crate::support::{Server, client, quick, raw};

async fn server(root: &std::path::Path) -> Server {
    let mut builder = S3ServiceBuilder::new(FileSystem::new(root).unwrap());
    builder.set_auth(SimpleAuth::from_single("id", "geheim"));
    let service = builder.build();
    raw(move |tcp| {
        let service = service.clone();
        async move {
            let conditional = hyper::service::service_fn(move |asked: http::Request<hyper::body::Incoming>| {
                let known = asked.headers().get("if-none-match").cloned();
                let answer = hyper::service::Service::call(&service, asked);
                async move {
                    let mut answer = answer.await?;
                    if known.is_some() && answer.headers().get("etag") == known.as_ref() {
                        *answer.status_mut() = http::StatusCode::NOT_MODIFIED;
                        answer.headers_mut().remove("content-length");
                        *answer.body_mut() = s3s::Body::empty();
                    }
                    Ok::<_, s3s::HttpError>(answer)
                }
            });
            let _ = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new())
                .serve_connection(hyper_util::rt::TokioIo::new(tcp), conditional)
                .await;
        }
    })
    .await
}

fn object(server: &Server, name: &str, secret: &str) -> S3Object {
    S3Object {
        endpoint: Some(Link::parse(&format!("http://{}", server.at)).unwrap()),
        region: "us-east-1".into(),
        bucket: "bucket".into(),
        object: name.into(),
        path_style: true,
        key: Some(S3Key {
            id: "id".into(),
            secret: secret.into(),
            token: None,
        }),
        trust: Trust::Roots,
        identity: None,
        via: Via::Settled,
    }
}

fn generator(object: S3Object) -> Box<dyn Generator> {
    Generators::standard(&client(quick()))
        .create(Source::S3(Box::new(object)))
        .unwrap()
}

fn bucket() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("bucket/sub dir")).unwrap();
    std::fs::write(root.path().join("bucket/file"), "data").unwrap();
    std::fs::write(root.path().join("bucket/sub dir/f+ä.yaml"), "data").unwrap();
    root
}

#[rstest]
#[case::plain("file")]
#[case::to_be_encoded("sub dir/f+ä.yaml")]
#[tokio::test]
async fn an_object_is_fetched_and_then_known(#[case] name: &str) {
    let root = bucket();
    let server = server(root.path()).await;
    let generator = generator(object(&server, name, "geheim"));
    let mut sink = Vec::new();
    let Fetched::Body(body) = generator.generate(&Order::default(), &mut sink).await.unwrap() else {
        panic!()
    };
    assert_eq!(sink, b"data");
    assert!(!body.link.as_str().contains('?'), "{}", body.link);
    assert!(body.validators.etag.is_some());
    assert!(generator.last_modified().await.unwrap().is_some());

    let known = Order {
        known: body.validators.clone(),
        ..Order::default()
    };
    assert_eq!(
        generator.generate(&known, &mut Vec::new()).await.unwrap(),
        Fetched::NotModified
    );
    std::fs::write(root.path().join("bucket").join(name), "other").unwrap();
    let mut sink = Vec::new();
    assert!(matches!(
        generator.generate(&known, &mut sink).await.unwrap(),
        Fetched::Body(_)
    ));
    assert_eq!(sink, b"other");
}

#[rstest]
#[case::wrong_key("file", "wrong", 403)]
#[case::no_object("none", "geheim", 404)]
#[tokio::test]
async fn a_refusal_has_its_status(#[case] name: &str, #[case] secret: &str, #[case] status: u16) {
    let root = bucket();
    let server = server(root.path()).await;
    let error = generator(object(&server, name, secret))
        .generate(&Order::default(), &mut Vec::new())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Status { status: found, .. } if found == status),
        "{error:?}"
    );
    assert!(!format!("{error} {error:?}").contains("X-Amz"));
}

#[tokio::test]
async fn a_limit_holds_here_too() {
    let root = bucket();
    let server = server(root.path()).await;
    let order = Order {
        max_bytes: Some(3),
        ..Order::default()
    };
    let error = generator(object(&server, "file", "geheim"))
        .generate(&order, &mut Vec::new())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
}

#[test]
fn the_registry_knows_its_types() {
    let generators = Generators::standard(&client(quick()));
    assert_eq!(generators.supported_types(), ["http", "s3"]);
    let maker: trellis_fetch::Maker = std::sync::Arc::new(|_| Err(Error::InsecureNotAllowed));
    assert!(generators.register("http", maker.clone()).is_err());
    let other = generators.clone();
    std::thread::spawn(move || other.register("later", maker).unwrap())
        .join()
        .unwrap();
    assert_eq!(generators.supported_types(), ["http", "later", "s3"]);
}

#[rstest]
#[case::bucket("a/b", "file")]
#[case::no_object("bucket", "")]
#[case::dots("bucket", "a/../b")]
fn what_makes_no_link_is_refused(#[case] bucket: &str, #[case] name: &str) {
    let object = S3Object {
        endpoint: None,
        region: "us-east-1".into(),
        bucket: bucket.into(),
        object: name.into(),
        path_style: false,
        key: None,
        trust: Trust::Roots,
        identity: None,
        via: Via::Settled,
    };
    assert!(
        Generators::standard(&client(quick()))
            .create(Source::S3(Box::new(object)))
            .is_err()
    );
}
