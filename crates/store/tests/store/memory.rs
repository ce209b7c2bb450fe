//! What only the memory does: it refuses beyond its bound.

use trellis_store::{Class, Content, Error, Memory, Put, Storage as _};

use crate::backend::{bytes, key, listed, spooled, streamed};

const KIB: usize = 1024;

#[tokio::test]
async fn beyond_the_bound_it_refuses_and_says_so() {
    let memory = Memory::bounded(1024 * KIB as u64);
    let (one, two, small) = (bytes(1, 600 * KIB), bytes(2, 600 * KIB), bytes(3, 300 * KIB));
    memory.put(&key("a/b", &one), streamed(one.clone())).await.unwrap();
    let (_file, file) = spooled(&two);
    for content in [streamed(two.clone()), file] {
        let error = memory.put(&key("a/b", &two), content).await.unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
        assert_eq!(error.class(), Class::Waiting);
        assert!(
            error.chain().contains("holds at most 1048576 bytes"),
            "{}",
            error.chain()
        );
    }
    // What was refused takes no room.
    let stored = memory.put(&key("a/b", &small), streamed(small.clone())).await;
    assert_eq!(stored.unwrap(), Put::Stored);

    let huge = bytes(4, 1025 * KIB);
    let empty = Memory::bounded(1024 * KIB as u64);
    let (_file, file) = spooled(&huge);
    for content in [streamed(huge.clone()), file] {
        let error = empty.put(&key("a/b", &huge), content).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: 1_048_576, .. }), "{error:?}");
        assert_eq!(error.class(), Class::Refused);
    }

    // What is deleted gives its room back, as soon as nobody reads it any more.
    let reading = memory.open(&key("a/b", &one), None).await.unwrap();
    memory.delete(&key("a/b", &one)).await.unwrap();
    assert!(memory.put(&key("a/b", &two), streamed(two.clone())).await.is_err());
    drop(reading);
    let stored = memory.put(&key("a/b", &two), streamed(two.clone())).await;
    assert_eq!(stored.unwrap(), Put::Stored);
    assert_eq!(listed(&memory, "").await.len(), 2);
}

#[tokio::test]
async fn wrong_bytes_take_no_room() {
    let memory = Memory::bounded(1024 * KIB as u64);
    let (wrong, right) = (bytes(1, 1000 * KIB), bytes(2, 1000 * KIB));
    for _ in 0..3 {
        assert!(memory.put(&key("a/b", &right), streamed(wrong.clone())).await.is_err());
        let broken = Content::file("/nonexistent");
        assert!(memory.put(&key("a/b", &right), broken).await.is_err());
    }
    memory.put(&key("a/b", &right), streamed(right.clone())).await.unwrap();
}
