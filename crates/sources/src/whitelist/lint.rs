//! What a whitelist allows and should not.

use std::fmt;

use super::Rule;

/// A rule that allows more than it seems, or that looks like a mistake. Displayed as one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The command.
    pub command: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "command {:?}: {}", self.command, self.message)
    }
}

const SHELLS: &[&str] = &["ash", "bash", "busybox", "dash", "fish", "ksh", "mksh", "sh", "zsh"];
/// Programs that run others, or code that comes as an argument.
const RUNNERS: &[&str] = &[
    "awk", "chroot", "env", "find", "gawk", "git", "lua", "make", "mawk", "nice", "node", "nohup", "nsenter",
    "parallel", "perl", "php", "python", "python3", "ruby", "sed", "setpriv", "setsid", "ssh", "stdbuf", "sudo", "tar",
    "timeout", "unshare", "watch", "xargs",
];
const NETWORK: &[&str] = &[
    "aria2c", "curl", "ftp", "nc", "ncat", "netcat", "scp", "sftp", "socat", "telnet", "wget",
];
/// Folders where others may put files.
const SHARED: &[&str] = &["/tmp/", "/var/tmp/", "/dev/shm/", "/run/user/", "/home/"];
/// Arguments that have nothing in common: what matches all of them matches anything.
const PROBES: &[&str] = &[
    "",
    "-c",
    "--x=1",
    "a b;c",
    "../../etc/passwd",
    "http://192.0.2.1/",
    ".a|.b",
    "ä",
    "@f",
    "$(x)",
];

pub(super) fn lint(name: &str, rule: &Rule) -> Vec<Warning> {
    let place = rule.path.as_ref().map_or(name, |path| path.to_str().unwrap_or(name));
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let program = last(place);
    let takes = |arg: &str| rule.patterns.is_empty() || rule.patterns.iter().any(|(_, pattern)| pattern.is_match(arg));
    let mut found = Vec::new();
    if SHELLS.contains(&program.as_str()) {
        found.push(if takes("-c") || takes("-ec") {
            "a shell that takes -c runs any command; allow the commands themselves".to_owned()
        } else {
            "a shell runs whatever its script or its input says; allow the commands themselves".to_owned()
        });
    }
    if RUNNERS.contains(&program.as_str()) {
        found.push("it can run other programs or code that is given to it".to_owned());
    }
    if NETWORK.contains(&program.as_str()) {
        found.push("it reaches the network, metadata endpoints too; use the source's own request instead".to_owned());
    }
    if SHARED.iter().any(|folder| place.starts_with(folder)) {
        found.push(format!("others may put a file at {place}"));
    }
    if last(name) != program {
        found.push(format!("its name is not that of the file {place} that it runs"));
    }
    if rule.patterns.is_empty() {
        found.push("it takes any arguments; add argumentPatterns".to_owned());
    }
    if rule.env.is_none() {
        found.push("it takes any variables that are not refused everywhere; add env: [NAMES], or env: []".to_owned());
    }
    for (text, pattern) in &rule.patterns {
        if PROBES
            .iter()
            .filter(|probe| !probe.is_empty())
            .all(|probe| pattern.is_match(probe))
        {
            found.push(format!("pattern {text:?} matches anything"));
        }
    }
    found
        .into_iter()
        .map(|message| Warning {
            command: name.to_owned(),
            message,
        })
        .collect()
}
