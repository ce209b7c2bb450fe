//! What a policy does at each kind of target, row by row.

#[path = "targets/linkerds.rs"]
mod linkerds;
#[path = "targets/outside.rs"]
mod outside;
#[path = "targets/passed.rs"]
mod passed;
#[path = "targets/rest.rs"]
mod rest;
#[path = "targets/rivals.rs"]
mod rivals;
#[path = "targets/routes.rs"]
mod routes;
#[path = "targets/stage.rs"]
mod stage;
#[path = "targets/theirs.rs"]
mod theirs;
#[path = "targets/whole.rs"]
mod whole;
