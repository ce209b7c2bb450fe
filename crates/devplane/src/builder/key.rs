//! The key under which a peer's programs are cached.

use aws_lc_rs::digest;

use crate::Peer;

/// Changes when the layout of an entry changes.
const LAYOUT: &str = "1";

/// The key of a peer's programs: every input, each with its length in front, so that none runs into the next.
pub(super) fn of(peer: &Peer, toolchain: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut add = |text: &str| {
        context.update(text.len().to_string().as_bytes());
        context.update(b":");
        context.update(text.as_bytes());
    };
    [LAYOUT, toolchain, &peer.go_mod, &peer.go_sum]
        .into_iter()
        .for_each(&mut add);
    let lists = [
        peer.flags(),
        peer.binaries
            .iter()
            .flat_map(|binary| [binary.name.clone(), binary.package.clone()])
            .collect(),
        peer.sources
            .iter()
            .flat_map(|(path, text)| [path.clone(), text.to_string()])
            .collect(),
        peer.env
            .iter()
            .flat_map(|(key, value)| [key.clone(), value.clone()])
            .collect(),
    ];
    for list in lists {
        add(&list.len().to_string());
        for text in &list {
            add(text);
        }
    }
    // Only where there are any: a peer without files keeps the key that it had before there were files.
    if !peer.files.is_empty() {
        add(&peer.files.len().to_string());
        for file in &peer.files {
            for text in [&file.name, &file.module, &file.path] {
                add(text);
            }
        }
    }
    let digest = context.finish();
    digest
        .as_ref()
        .iter()
        .take(10)
        .fold(String::new(), |key, byte| format!("{key}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer::new("tiny", "module tiny\n", "").binary("tiny", "example.org/tiny")
    }

    #[test]
    fn the_key_covers_every_input() {
        let mut variants = vec![
            peer(),
            peer().binary("other", "example.org/other"),
            peer().stamp("a.b", "c"),
            Peer {
                go_mod: "module other\n".into(),
                ..peer()
            },
            Peer {
                go_sum: "x".into(),
                ..peer()
            },
            Peer {
                tags: vec!["seccomp".to_owned()],
                ..peer()
            },
            Peer {
                env: vec![("CGO_ENABLED".to_owned(), "0".to_owned())],
                ..peer()
            },
            peer().file("example.org/tiny", "crds/a.yaml"),
            peer().file("example.org/tiny", "crds/b.yaml"),
            Peer {
                sources: vec![("CGO_ENABLED".to_owned(), "0".into())],
                ..peer()
            },
        ];
        let keys: std::collections::BTreeSet<String> = variants
            .iter()
            .map(|peer| of(peer, "go1"))
            .chain([of(&peer(), "go2")])
            .collect();
        assert_eq!(keys.len(), variants.len() + 1);
        // The name is for people: the entry carries it beside the key.
        variants.truncate(1);
        assert_eq!(
            of(&variants[0], "go1"),
            of(
                &Peer {
                    name: "renamed".to_owned(),
                    ..peer()
                },
                "go1"
            )
        );
    }
}
