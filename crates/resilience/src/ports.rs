//! `Ports`: a set of ports, as Linkerd writes it: `25,587,4000-4100`.

use std::str::FromStr;

/// A set of ports, kept as ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports(Vec<(u16, u16)>);

/// The text is not a list of ports and ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotPorts;

impl Ports {
    /// What Linkerd treats as opaque unless its installation says otherwise (`proxy.opaquePorts`).
    #[must_use]
    pub fn opaque_by_default() -> Self {
        Self(
            [25, 587, 3306, 4444, 5432, 6379, 9300, 11211]
                .map(|port| (port, port))
                .into(),
        )
    }

    /// Whether the port is in the set.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|(low, high)| (*low..=*high).contains(&port))
    }
}

impl FromStr for Ports {
    type Err = NotPorts;

    /// Blanks around numbers and empty items do not matter; ports are 1 to 65535 and ranges run upwards
    /// (linkerd2, `policy-controller/k8s/index/src/ports.rs`).
    fn from_str(text: &str) -> Result<Self, NotPorts> {
        let items = text.split(',').filter(|item| !item.trim().is_empty());
        let ranges = items.map(|item| match item.split_once('-') {
            Some((low, high)) => Ok((port(low)?, port(high)?)),
            None => port(item).map(|port| (port, port)),
        });
        let ranges: Vec<_> = ranges.collect::<Result<_, _>>()?;
        if ranges.iter().all(|(low, high)| low <= high) {
            Ok(Self(ranges))
        } else {
            Err(NotPorts)
        }
    }
}

fn port(text: &str) -> Result<u16, NotPorts> {
    text.trim().parse().ok().filter(|port| *port > 0).ok_or(NotPorts)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", &[])]
    #[case("25", &[25])]
    #[case(" 25 , 587,", &[25, 587])]
    #[case("4000-4002", &[4000, 4001, 4002])]
    #[case("1 - 2,65535", &[1, 2, 65535])]
    fn a_list_contains_what_it_names(#[case] text: &str, #[case] expected: &[u16]) {
        let ports: Ports = text.parse().unwrap();
        let found: Vec<u16> = (1..=65535).filter(|port| ports.contains(*port)).collect();
        assert_eq!(found, expected);
    }

    #[rstest]
    #[case("0")]
    #[case("65536")]
    #[case("http")]
    #[case("2-1")]
    #[case("2-")]
    #[case("1,x")]
    fn anything_else_is_not_a_list(#[case] text: &str) {
        assert_eq!(text.parse::<Ports>(), Err(NotPorts));
    }

    #[test]
    fn the_default_is_that_of_linkerd() {
        assert_eq!(
            "25,587,3306,4444,5432,6379,9300,11211".parse(),
            Ok(Ports::opaque_by_default())
        );
    }
}
