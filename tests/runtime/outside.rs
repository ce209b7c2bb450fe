//! Whom news from outside the cluster wake.

use super::{Errand, ErrandSpec, Parcel, tells, up};

/// Each that is concerned, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn news_from_outside_wake_every_object_that_is_concerned() {
    let (stage, outside) = up("one").await;
    outside.0.lock().unwrap().told = true;
    for (name, note) in [("g", "deaf"), ("e", ""), ("f", "")] {
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
    // What its own last write woke is over by the first round, and what the second would wake by the third.
    for word in ["two", "three", "four"] {
        outside.says(word);
        outside.0.lock().unwrap().news.send_replace(());
        for name in ["e", "f"] {
            let has = |parcel: &Parcel| parcel.status.as_ref().is_some_and(|status| status.word == word);
            stage.isolated.until(name, word, has).await;
        }
    }
    let deaf: Parcel = stage.isolated.get("g").await.unwrap();
    let word = deaf.status.unwrap().word;
    assert!(["one", "two"].contains(&word.as_str()), "{word}");
}
