//! Reloading on a real directory, the way the kubelet and editors change it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use tempfile::TempDir;
use trellis_hooks::{Kept, Reload, Report};

/// Good when it is a number.
fn start(file: &Path) -> Reload<u32> {
    Reload::start(file, 64, |text: &str| text.trim().parse::<u32>()).unwrap()
}

/// Waits until it stands so.
async fn until(reload: &Reload<u32>, so: impl Fn(&Kept<u32>) -> bool) -> Kept<u32> {
    let mut changes = reload.changes();
    let kept = tokio::time::timeout(Duration::from_secs(30), changes.wait_for(|kept| so(kept)))
        .await
        .unwrap();
    kept.unwrap().clone()
}

fn good(kept: &Kept<u32>) -> Option<u32> {
    kept.good.as_deref().copied()
}

/// A mount as the kubelet's atomic writer makes it: `name -> ..data/name`, `..data -> ..stamp`.
fn mount(root: &TempDir, stamp: &str, text: &str) {
    let at = |name: &str| root.path().join(name);
    fs::create_dir(at(stamp)).unwrap();
    fs::write(at(stamp).join("whitelist.yaml"), text).unwrap();
    let old = fs::read_link(at("..data"));
    symlink(stamp, at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    match old {
        Ok(old) => fs::remove_dir_all(root.path().join(old)).unwrap(),
        Err(_) => symlink("..data/whitelist.yaml", at("whitelist.yaml")).unwrap(),
    }
}

#[tokio::test]
async fn the_swap_of_a_config_map_is_seen_and_a_broken_one_keeps_the_last_good() {
    let root = tempfile::tempdir().unwrap();
    mount(&root, "..1", "1");
    let reload = start(&root.path().join("whitelist.yaml"));
    assert_eq!((good(&reload.kept()), reload.kept().report), (Some(1), Report::Good));
    mount(&root, "..2", "2");
    until(&reload, |kept| good(kept) == Some(2)).await;
    mount(&root, "..3", "no number");
    let kept = until(&reload, |kept| kept.report != Report::Good).await;
    assert_eq!(good(&kept), Some(2), "the last good one counts");
    assert!(
        matches!(&kept.report, Report::Broken(why) if why.contains("invalid digit")),
        "{kept:?}"
    );
    mount(&root, "..4", &"4".repeat(100));
    let kept = until(
        &reload,
        |kept| matches!(&kept.report, Report::Broken(why) if why.contains("more than 64")),
    )
    .await;
    assert_eq!(good(&kept), Some(2));
    mount(&root, "..5", "5");
    let kept = until(&reload, |kept| kept.report == Report::Good).await;
    assert_eq!(good(&kept), Some(5));
}

#[tokio::test]
async fn a_file_may_come_late_change_in_place_be_replaced_and_go() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("whitelist.yaml");
    let reload = start(&file);
    assert_eq!((good(&reload.kept()), reload.kept().report), (None, Report::Missing));
    fs::write(&file, "1").unwrap();
    until(&reload, |kept| good(kept) == Some(1)).await;
    fs::write(&file, "2").unwrap();
    until(&reload, |kept| good(kept) == Some(2)).await;
    fs::write(root.path().join("new"), "3").unwrap();
    fs::rename(root.path().join("new"), &file).unwrap();
    until(&reload, |kept| good(kept) == Some(3)).await;
    fs::remove_file(&file).unwrap();
    let kept = until(&reload, |kept| kept.report == Report::Missing).await;
    assert_eq!(good(&kept), Some(3));
}

#[tokio::test]
async fn a_directory_that_is_made_anew_is_found_again() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("hooks");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("whitelist.yaml");
    fs::write(&file, "1").unwrap();
    let reload = start(&file);
    fs::remove_dir_all(&folder).unwrap();
    until(&reload, |kept| kept.report == Report::Missing).await;
    fs::create_dir(&folder).unwrap();
    fs::write(&file, "2").unwrap();
    until(&reload, |kept| good(kept) == Some(2)).await;
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_said() {
    let error = Reload::start("/nowhere/whitelist.yaml", 64, |text: &str| text.parse::<u32>()).unwrap_err();
    assert_eq!(error.to_string(), "cannot watch /nowhere");
}
