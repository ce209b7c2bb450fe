//! The peers: each a folder with `go.mod` and `go.sum`, and one small file here.

pub mod etcd;
pub mod flux;
pub mod helm;
pub mod kubectl;
pub mod kubernetes;
pub mod s3;
