//! That every value is tried: set in one of `ci/` to something else than it is by default.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

/// Compares the chart's values with the cases.
pub(crate) fn judge(chart: &Path, cases: &[PathBuf]) -> Result<()> {
    let defaults = read(&chart.join("values.yaml"))?;
    let all = leaves(&defaults);
    let mut left = all.clone();
    for case in cases {
        let case = read(case)?;
        left.retain(|place| {
            !case
                .pointer(place)
                .is_some_and(|set| Some(set) != defaults.pointer(place))
        });
    }
    ensure!(left.is_empty(), "no case sets {left:?}");
    eprintln!("chart: all {} values are tried", all.len());
    Ok(())
}

fn read(file: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let read: Option<Value> =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is no YAML", file.display()))?;
    Ok(read.unwrap_or_else(|| Value::Object(Map::new())))
}

/// The places of everything that is no map, and of maps that are empty, as JSON pointers.
fn leaves(value: &Value) -> BTreeSet<String> {
    match value.as_object() {
        Some(map) if !map.is_empty() => {
            let below = |(name, value): (&String, &Value)| {
                let name = name.replace('~', "~0").replace('/', "~1");
                leaves(value).into_iter().map(move |rest| format!("/{name}{rest}"))
            };
            map.iter().flat_map(below).collect()
        }
        _ => BTreeSet::from([String::new()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_nobody_sets_or_that_is_set_to_its_default_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        write("values.yaml", "a: 1\nb: { c/d: x, e: {} }\nf: []\n");
        let one = write("one.yaml", "a: 2\nb: { c/d: y }\n");
        let two = write("two.yaml", "b: { e: { g: 1 } }\nf: []\n");
        let error = judge(folder.path(), &[one.clone(), two.clone()]).unwrap_err();
        assert_eq!(error.to_string(), "no case sets {\"/f\"}");
        let three = write("three.yaml", "f: [1]\n");
        judge(folder.path(), &[one, two, three]).unwrap();
    }
}
