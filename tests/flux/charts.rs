//! helm-controller installs the chart that an artifact is.

use serde_json::Value;

use crate::{
    archive::{archive, sha256},
    site::{Kind, Site, condition},
};

const CHART: &str = "apiVersion: v2\nname: hello\nversion: 0.1.0\n";

/// A chart archive: one folder with `Chart.yaml` in it. Its template writes `number` into a `ConfigMap`.
fn chart(number: &str) -> Vec<u8> {
    let template = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{{{ .Release.Name }}}}-hello\ndata:\n  number: \"{number}\"\n"
    );
    archive(&[("hello/Chart.yaml", CHART), ("hello/templates/map.yaml", &template)])
}

/// Installed, and upgraded by a new digest though the chart's version is the same: the digest's first twelve digits are
/// its build metadata.
#[tokio::test(flavor = "multi_thread")]
async fn a_chart_is_installed_and_a_new_digest_upgrades_it() {
    let site = Site::new("chart").await;
    site.artifact("web").await;
    let mut history = Vec::new();
    for (path, number) in [("one.tgz", "1"), ("two.tgz", "2")] {
        let bytes = chart(number);
        let digest = sha256(&bytes);
        let artifact = site.serve(path, bytes);
        site.publish("web", Some(&artifact)).await;
        if history.is_empty() {
            site.release("web").await;
        }
        let status = site.ready_at(Kind::Release, "web", &artifact.revision).await;
        site.data("web-hello", "number", number).await;
        history.insert(0, format!("0.1.0+{}", &digest[..12]));
        let versions: Vec<&str> = status["history"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|release| release["chartVersion"].as_str())
            .collect();
        assert_eq!(versions, history, "{status}");
    }
    site.finish(Kind::Release, "web").await;
}

/// As with manifests: the digest is that of the bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_chart_with_a_wrong_digest_is_refused() {
    let site = Site::new("chart-digest").await;
    site.artifact("web").await;
    let mut wrong = site.serve("wrong.tgz", chart("1"));
    wrong.digest = format!("sha256:{}", sha256(CHART.as_bytes()));
    site.publish("web", Some(&wrong)).await;
    site.release("web").await;
    let failed =
        |status: &Value| condition(status, "Ready").0 == "False" && condition(status, "Ready").2.contains("digest");
    let status = site.status(Kind::Release, "web", "refuses the digest", failed).await;
    let (_, reason, message) = condition(&status, "Ready");
    assert_eq!(reason, "ArtifactFailed", "{message}");
    site.finish(Kind::Release, "web").await;
}
