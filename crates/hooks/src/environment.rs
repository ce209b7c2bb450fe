//! The environment of a run: empty, then what the sidecar gives, then what the hook asks for and may have.
//!
//! Invariants: no name that changes which code a program loads, which file a name means or how a shell reads passes,
//! wherever it comes from; a hook, in addition, gets none that says whom a program asks or trusts.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

/// Names that steer a loader, an interpreter, a shell or the look-up of programs.
const REFUSED: &[&str] = &[
    "AWKLIBPATH",
    "AWKPATH",
    "BASHOPTS",
    "BASH_ENV",
    "BROWSER",
    "BUNDLE_GEMFILE",
    "CDPATH",
    "CLASSPATH",
    "CURL_HOME",
    "EDITOR",
    "ENV",
    "GCONV_PATH",
    "GEM_HOME",
    "GEM_PATH",
    "GLOBIGNORE",
    "GUILE_LOAD_COMPILED_PATH",
    "GUILE_LOAD_PATH",
    "HOME",
    "HOSTALIASES",
    "IFS",
    "INPUTRC",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "JQ_LIBRARY_PATH",
    "LESSCLOSE",
    "LESSOPEN",
    "LOCPATH",
    "MALLOC_CHECK_",
    "MALLOC_TRACE",
    "MAKEFLAGS",
    "MANPAGER",
    "NLSPATH",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PAGER",
    "PATH",
    "PERLLIB",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "PROMPT_COMMAND",
    "PS4",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "RUBYLIB",
    "RUBYOPT",
    "SHELL",
    "SHELLOPTS",
    "SSH_ASKPASS",
    "SUDO_ASKPASS",
    "TCLLIBPATH",
    "TERMCAP",
    "TERMINFO",
    "TERMINFO_DIRS",
    "TMPDIR",
    "TZDIR",
    "VISUAL",
    "_JAVA_OPTIONS",
];

/// Beginnings of such names: the dynamic loader's, exported shell functions, Python's, Perl's, git's and so on.
const REFUSED_BEGINNINGS: &[&str] = &[
    "BASH_FUNC_",
    "DYLD_",
    "GIT_",
    "GLIBC_TUNABLES",
    "LD_",
    "LUA_",
    "OPENSSL_",
    "PERL5",
    "PYTHON",
];

/// Names that say whom a program asks, whom it trusts and which settings it reads: whoever runs the sidecar may set
/// them for all runs, a hook may not.
const STEERING: &[&str] = &[
    "ALL_PROXY",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "CURL_CA_BUNDLE",
    "DOCKER_CONFIG",
    "DOCKER_HOST",
    "FTP_PROXY",
    "GNUPGHOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "KUBECONFIG",
    "NETRC",
    "NODE_EXTRA_CA_CERTS",
    "NODE_TLS_REJECT_UNAUTHORIZED",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "SSLKEYLOGFILE",
];

/// Beginnings of such names.
const STEERING_BEGINNINGS: &[&str] = &["HELM_", "SSL_", "XDG_"];

/// Longest value, in bytes; the kernel's own limit for one is 128 KiB with its name.
const LONGEST: usize = 96 * 1024;

/// A variable that a hook may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadVariable {
    /// It changes what a program loads or finds.
    #[error("environment variable {0} is not allowed: it changes which code a program loads or finds; rename it")]
    Refused(String),
    /// It says whom a program asks or trusts.
    #[error(
        "environment variable {0} is not allowed in a hook: it says whom a program asks or trusts, or where its settings \
         are; whoever runs the operator can set it for all hooks"
    )]
    Steering(String),
    /// It is not a name that a shell could use.
    #[error("environment variable {0:?} is not a name; use letters, digits and _, not starting with a digit")]
    Name(String),
    /// Its value cannot be passed on.
    #[error("the value of environment variable {0} holds a NUL or is longer than 96 KiB")]
    Value(String),
}

/// Checks one variable that a hook asks for.
pub fn check(name: &str, value: &str) -> Result<(), BadVariable> {
    check_passed(name, value)?;
    let upper = name.to_ascii_uppercase();
    let begins = STEERING_BEGINNINGS.iter().any(|beginning| upper.starts_with(beginning));
    if begins || STEERING.contains(&upper.as_str()) {
        return Err(BadVariable::Steering(name.to_owned()));
    }
    Ok(())
}

/// Checks one variable that the sidecar passes on to every run.
pub fn check_passed(name: &str, value: &str) -> Result<(), BadVariable> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.len() > 256 || !name.chars().all(good) || name.chars().next().is_none_or(|c| c.is_ascii_digit()) {
        return Err(BadVariable::Name(name.chars().take(64).collect()));
    }
    let upper = name.to_ascii_uppercase();
    let begins = REFUSED_BEGINNINGS.iter().any(|beginning| upper.starts_with(beginning));
    if begins || REFUSED.contains(&upper.as_str()) {
        return Err(BadVariable::Refused(name.to_owned()));
    }
    if value.len() > LONGEST || value.contains('\0') {
        return Err(BadVariable::Value(name.to_owned()));
    }
    Ok(())
}

/// The whole environment of a run: `path` and the working directory from the sidecar, `passed` from its own
/// environment by allow-list, and `asked` from the hook.
pub(crate) fn whole(
    path: &OsString,
    folder: &Path,
    passed: &BTreeMap<String, OsString>,
    asked: &BTreeMap<String, String>,
) -> BTreeMap<OsString, OsString> {
    let mut all: BTreeMap<OsString, OsString> = BTreeMap::new();
    all.insert("LANG".into(), "C.UTF-8".into());
    all.extend(passed.iter().map(|(name, value)| (name.into(), value.clone())));
    all.extend(asked.iter().map(|(name, value)| (name.into(), value.into())));
    all.insert("PATH".into(), path.clone());
    all.insert("HOME".into(), folder.into());
    all.insert("TMPDIR".into(), folder.into());
    all
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    fn names_that_steer_a_program_are_refused(
        #[values(
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "ld_preload",
            "PATH",
            "BASH_ENV",
            "ENV",
            "IFS",
            "SHELLOPTS",
            "HOME",
            "BASH_FUNC_ls",
            "PYTHONPATH",
            "PERL5LIB",
            "GIT_SSH_COMMAND",
            "GLIBC_TUNABLES",
            "PROMPT_COMMAND",
            "LUA_INIT",
            "LUA_PATH_5_4",
            "OPENSSL_CONF",
            "PHPRC",
            "AWKPATH",
            "LESSOPEN",
            "PAGER",
            "EDITOR"
        )]
        name: &str,
    ) {
        assert_eq!(check(name, "x"), Err(BadVariable::Refused(name.to_owned())));
    }

    #[rstest]
    fn whom_a_program_trusts_is_for_the_operator_to_say(
        #[values("SSL_CERT_FILE", "KUBECONFIG", "XDG_CONFIG_HOME", "HTTP_PROXY", "https_proxy")] name: &str,
    ) {
        assert_eq!(check(name, "x"), Err(BadVariable::Steering(name.to_owned())));
        assert_eq!(check_passed(name, "x"), Ok(()));
    }

    #[rstest]
    #[case("", "x")]
    #[case("1A", "x")]
    #[case("A=B", "x")]
    #[case("BASH_FUNC_a%%", "x")]
    #[case("A B", "x")]
    #[case("Ä", "x")]
    fn other_texts_are_no_names(#[case] name: &str, #[case] value: &str) {
        assert_eq!(check(name, value), Err(BadVariable::Name(name.to_owned())));
    }

    #[rstest]
    #[case("TOKEN", "secret", true)]
    #[case("_x9", "", true)]
    #[case("PATHS", "a", true)]
    #[case("ENVIRONMENT", "production", true)]
    #[case("TOKEN", "a\0b", false)]
    fn ordinary_variables_pass(#[case] name: &str, #[case] value: &str, #[case] passes: bool) {
        assert_eq!(check(name, value).is_ok(), passes);
    }

    #[test]
    fn a_hook_cannot_replace_what_the_sidecar_sets() {
        let asked = BTreeMap::from([
            ("A".to_owned(), "1".to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
        ]);
        let all = whole(&"/bin".into(), Path::new("/run"), &BTreeMap::new(), &asked);
        let names: Vec<_> = all.keys().filter_map(|name| name.to_str()).collect();
        assert_eq!(names, ["A", "HOME", "LANG", "PATH", "TMPDIR"]);
        assert_eq!(all.get(&OsString::from("HOME")).unwrap(), "/run");
    }
}
