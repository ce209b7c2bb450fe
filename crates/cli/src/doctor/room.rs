//! Whether the nodes have the room that the requirements ask for.

use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::api::resource::Quantity};
use kube::{Api, Client, api::ListParams};

use super::{Found, State};
use crate::live;

/// What the requirements want of the nodes together: thousandths of a CPU, and bytes.
const ROOM: (f64, f64) = (4000.0, 8.0 * 1024.0 * 1024.0 * 1024.0);

/// What Pods may have on all nodes together.
pub(super) async fn room(client: &Client) -> Found {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
    let hint = "ask for a role that may list nodes";
    let nodes = nodes.map_err(|error| live::refused(error, "list nodes", None, hint))?;
    let sum = |name: &str| {
        let of = |node: &Node| quantity(node.status.as_ref()?.allocatable.as_ref()?.get(name)?);
        // The empty sum of floats is -0.
        nodes.items.iter().filter_map(of).sum::<f64>().abs()
    };
    let (cpus, memory) = (sum("cpu") * 1000.0, sum("memory"));
    let state = if cpus >= ROOM.0 && memory >= ROOM.1 {
        State::Fine
    } else {
        State::Partial
    };
    let found = format!(
        "{:.1} CPUs and {:.1} GiB on {} nodes",
        cpus / 1000.0,
        memory / f64::from(1 << 30),
        nodes.items.len()
    );
    Ok((state, found))
}

/// A number with one of the units of Kubernetes.
fn quantity(text: &Quantity) -> Option<f64> {
    const UNITS: [(&str, f64); 12] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("m", 0.001),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("", 1.0),
    ];
    let number = |(unit, factor): (&str, f64)| Some(text.0.strip_suffix(unit)?.parse::<f64>().ok()? * factor);
    UNITS.into_iter().find_map(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        let read = |text: &str| quantity(&Quantity(text.to_owned()));
        assert_eq!(read("4"), Some(4.0));
        assert_eq!(read("1500m"), Some(1.5));
        assert_eq!(read("8Gi"), Some(f64::from(1 << 30) * 8.0));
        assert_eq!(read("16M"), Some(16e6));
        assert_eq!(read("much"), None);
    }
}
