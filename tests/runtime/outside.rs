//! Whom news from outside the cluster wake.

use super::{Errand, ErrandSpec, Parcel, tells, up};

/// Each that is concerned, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn news_from_outside_wake_every_object_that_is_concerned() {
    let (stage, outside) = up("one").await;
    outside.0.lock().unwrap().told = true;
    for (name, note) in [("e", ""), ("f", ""), ("g", "deaf")] {
        let note = note.to_owned();
        let errand = Errand::new(
            name,
            ErrandSpec {
                note,
                ..ErrandSpec::default()
            },
        );
        stage.isolated.create_object(errand).await.unwrap();
        let done = |errand: &Errand| tells(errand, "Ready", "True");
        stage.isolated.until(name, "ready", done).await;
    }
    // The second round ends after whatever the first one woke.
    for word in ["two", "three"] {
        outside.says(word);
        outside.0.lock().unwrap().news.send_replace(());
        for name in ["e", "f"] {
            let has = |parcel: &Parcel| parcel.status.as_ref().is_some_and(|status| status.word == word);
            stage.isolated.until(name, word, has).await;
        }
    }
    let deaf: Parcel = stage.isolated.get("g").await.unwrap();
    assert_eq!(deaf.status.unwrap().word, "one");
}
