use proptest::prelude::*;
use rstest::rstest;

use super::*;

const EXAMPLE: &str = r"
commands:
  jq: { allowed: true, argumentPatterns: ['-c', '\.[a-z.]+'] }
  yq: { allowed: true, path: /usr/bin/yq }
  /opt/render: { allowed: true, sha256: 2C26B46B68FFC68FF99B453C1D30413413422D706483BFA0F98A5E886266E7AE }
  rm: { allowed: false }
";

fn args(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn ask(text: &str, command: &str, words: &[&str]) -> Result<Allowed, Refusal> {
    Whitelist::parse(text)
        .unwrap()
        .allows(Some("team-a"), command, &args(words))
}

#[rstest]
#[case::by_name("jq", &["-c", ".a.b"], Program::Named("jq".into()))]
#[case::no_arguments("jq", &[], Program::Named("jq".into()))]
#[case::by_a_path_that_the_executor_checks("/usr/bin/jq", &[".a"], Program::Named("jq".into()))]
#[case::a_name_with_its_path("yq", &["anything"], Program::File("/usr/bin/yq".into()))]
#[case::the_path_itself("/usr/bin/yq", &[], Program::File("/usr/bin/yq".into()))]
#[case::an_absolute_path("/opt/render", &[], Program::File("/opt/render".into()))]
fn what_is_listed_is_allowed(#[case] command: &str, #[case] words: &[&str], #[case] program: Program) {
    assert_eq!(ask(EXAMPLE, command, words).unwrap().program, program);
}

#[rstest]
#[case::unknown("curl", &[], "not in the whitelist")]
#[case::denied("rm", &[], "not in the whitelist")]
#[case::a_relative_path("./jq", &[], "not in the whitelist")]
#[case::a_relative_folder("bin/jq", &[], "not in the whitelist")]
#[case::a_folder("/usr/bin/", &[], "not in the whitelist")]
#[case::nothing("", &[], "not in the whitelist")]
#[case::the_name_of_a_path("render", &[], "not in the whitelist")]
#[case::a_part_of_the_argument("jq", &[".a;rm"], "argument 1")]
#[case::a_line_more("jq", &["-c", ".a\n"], "argument 2")]
#[case::a_line_before("jq", &["x\n.a"], "argument 1")]
#[case::one_of_many("jq", &["-c", ".a", "--secret=x"], "argument 3")]
fn all_else_is_refused_by_name(#[case] command: &str, #[case] words: &[&str], #[case] part: &str) {
    let refusal = ask(EXAMPLE, command, words).unwrap_err();
    assert_eq!(refusal.reason, REASON);
    let text = refusal.to_string();
    assert!(
        text.contains(&format!("{command:?}")) && text.contains(part) && !text.contains("secret"),
        "{text}"
    );
}

/// A path is never taken for the rule of its last name when that name has a file of its own.
#[test]
fn another_file_of_that_name_gets_the_rule_of_the_listed_file_only() {
    let allowed = ask(EXAMPLE, "/tmp/x/yq", &[]).unwrap();
    assert_eq!(
        allowed.program,
        Program::File("/usr/bin/yq".into()),
        "the executor refuses /tmp/x/yq for this file"
    );
    let allowed = ask(EXAMPLE, "/tmp/x/jq", &[]).unwrap();
    assert_eq!(
        allowed.program,
        Program::Named("jq".into()),
        "the executor refuses /tmp/x/jq for this name"
    );
}

#[rstest]
#[case("a", "a", true)]
#[case("a", "ab", false)]
#[case("a|b", "ab", false)]
#[case("a|b", "b", true)]
#[case("^a$", "a", true)]
#[case(".*", "a\nb", false)]
#[case("(?s).*", "a\nb", true)]
#[case("(?m)^a$", "a\nb", false)]
#[case("", "", true)]
#[case("", "a", false)]
fn patterns_match_whole_arguments(#[case] pattern: &str, #[case] arg: &str, #[case] allowed: bool) {
    let text = serde_json::json!({ "commands": { "x": { "allowed": true, "argumentPatterns": [pattern] } } });
    assert_eq!(ask(&text.to_string(), "x", &[arg]).is_ok(), allowed);
}

#[rstest]
#[case::an_unknown_field("commands: {jq: {allow: true}}", "allow")]
#[case::an_unknown_top("command: {}", "command")]
#[case::no_yaml("commands: [", "not understood")]
#[case::a_name_twice("commands: {jq: {}, jq: {}}", "jq")]
#[case::no_pattern("commands: {jq: {allowed: true, argumentPatterns: ['(']}}", "\"(\"")]
#[case::out_of_our_bracket("commands: {jq: {allowed: true, argumentPatterns: ['a)|(?:.*']}}", "a)|(?:.*")]
#[case::a_huge_pattern(r"commands: {jq: {allowed: true, argumentPatterns: ['(\w{900}){900}']}}", "jq")]
#[case::a_relative_command("commands: {bin/jq: {allowed: true}}", "absolute")]
#[case::a_detour("commands: {/usr/../tmp/jq: {allowed: true}}", "absolute")]
#[case::a_relative_file("commands: {jq: {allowed: true, path: jq}}", "absolute")]
#[case::a_short_digest("commands: {jq: {allowed: true, sha256: abc}}", "64")]
#[case::no_variable("commands: {jq: {allowed: true, env: ['A=B']}}", "A=B")]
#[case::an_unknown_command("commands: {}\nnamespaces: {a: {commands: [jq]}}", "jq")]
fn a_bad_text_is_refused_with_what_is_wrong(#[case] text: &str, #[case] part: &str) {
    let error = Whitelist::parse(text).unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
}

/// The parser quotes the place on lines of its own: the first line has to do for a condition and for `hooks lint`.
#[test]
fn the_first_line_says_what_may_be_written() {
    let error = Whitelist::parse("commands:\n  jq:\n    allow: true\n")
        .unwrap_err()
        .to_string();
    let first = error.lines().next().unwrap();
    assert!(
        first.contains("a command has allowed, argumentPatterns, env, path and sha256"),
        "{error}"
    );
}

#[rstest]
#[case::listed("jq", &["MODE"], None)]
#[case::none_asked_for("jq", &[], None)]
#[case::another("jq", &["MODE", "HTTP_X"], Some("HTTP_X"))]
#[case::by_the_path_of_a_listed_file("/usr/bin/yq", &["MODE"], Some("MODE"))]
#[case::without_a_list("cat", &["ANY"], None)]
fn only_listed_variables_are_taken(#[case] command: &str, #[case] names: &[&str], #[case] refused: Option<&str>) {
    let text = "commands: {jq: {allowed: true, env: [MODE, A_1]}, yq: {allowed: true, path: /usr/bin/yq, env: []}, cat: {allowed: true}}";
    let taken = Whitelist::parse(text).unwrap().takes(command, names.iter().copied());
    match refused {
        None => assert_eq!(taken, Ok(())),
        Some(name) => {
            let text = taken.unwrap_err().to_string();
            assert!(
                text.contains(&format!("{name:?}")) && text.contains(&format!("{command:?}")),
                "{text}"
            );
        }
    }
}

#[test]
fn variables_without_a_list_are_a_risk_that_is_told() {
    let whitelist = Whitelist::parse("commands: {jq: {allowed: true, argumentPatterns: ['-c']}}").unwrap();
    let told = whitelist.lint();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].message.contains("env: [NAMES]"), "{told:?}");
}

#[rstest]
#[case("")]
#[case("commands:")]
#[case("commands: {}")]
#[case("# nothing")]
fn an_empty_text_allows_nothing(#[case] text: &str) {
    assert!(ask(text, "jq", &[]).is_err());
}

#[test]
fn a_large_text_is_refused() {
    let text = format!("# {}", "x".repeat(usize::try_from(LIMIT).unwrap()));
    assert!(Whitelist::parse(&text).unwrap_err().to_string().contains("bytes"));
}

#[rstest]
#[case(Some("team-a"), "jq", true)]
#[case(Some("team-a"), "yq", false)]
#[case(Some("team-b"), "yq", true)]
#[case(Some("team-b"), "jq", false)]
#[case(None, "yq", true)]
#[case(None, "jq", false)]
fn namespaces_have_their_own_commands(#[case] namespace: Option<&str>, #[case] command: &str, #[case] allowed: bool) {
    let text = "
commands: { jq: { allowed: true }, yq: { allowed: true } }
namespaces: { team-a: { commands: [jq] }, '*': { commands: [yq] } }";
    let list = Whitelist::parse(text).unwrap();
    assert_eq!(list.allows(namespace, command, &[]).is_ok(), allowed);
}

#[test]
fn the_pin_is_lower_case() {
    let allowed = ask(EXAMPLE, "/opt/render", &[]).unwrap();
    assert!(allowed.sha256.unwrap().starts_with("2c26b46b"));
}

#[rstest]
#[case::comments("commands: {b: {allowed: true}, a: {allowed: true}} # why", true)]
#[case::order("commands:\n  a: {allowed: true}\n  b: {allowed: true}", true)]
#[case::a_rule("commands: {a: {allowed: true}, b: {allowed: false}}", false)]
#[case::a_pattern("commands: {a: {allowed: true, argumentPatterns: [x]}, b: {allowed: true}}", false)]
#[case::a_namespace("commands: {a: {allowed: true}, b: {allowed: true}}\nnamespaces: {}", false)]
#[case::a_variable("commands: {a: {allowed: true, env: [A]}, b: {allowed: true}}", false)]
fn the_version_is_that_of_the_rules(#[case] text: &str, #[case] same: bool) {
    let base = Whitelist::parse("commands: {a: {allowed: true}, b: {allowed: true}}").unwrap();
    assert_eq!(Whitelist::parse(text).unwrap().version() == base.version(), same);
    assert_eq!(base.version().len(), 64);
}

#[rstest]
#[case::a_shell("bash", "argumentPatterns: ['-c', '[a-z ]+']", &["-c runs any command"])]
#[case::a_script("sh", "argumentPatterns: ['/opt/[a-z]+\\.sh']", &["a shell runs whatever"])]
#[case::a_hidden_shell("jq", "path: /bin/bash, argumentPatterns: ['-c']", &["-c runs any command", "not that of the file"])]
#[case::curl("curl", "argumentPatterns: ['https://a\\.example/.*']", &["metadata endpoints"])]
#[case::catch_all("jq", "argumentPatterns: ['.*']", &["\".*\" matches anything"])]
#[case::catch_all_but_empty("jq", "argumentPatterns: ['.+']", &["\".+\" matches anything"])]
#[case::catch_all_in_disguise("jq", "argumentPatterns: ['[^\\n]*|x']", &["matches anything"])]
#[case::any_arguments("jq", "argumentPatterns: []", &["any arguments"])]
#[case::a_runner("env", "argumentPatterns: ['A=1']", &["other programs"])]
#[case::a_shared_folder("/tmp/jq", "argumentPatterns: ['-c']", &["others may put a file"])]
#[case::fine("jq", "argumentPatterns: ['-c', '\\.[a-z.]+']", &[])]
fn lint_says_what_allows_too_much(#[case] command: &str, #[case] rest: &str, #[case] parts: &[&str]) {
    let text = format!("commands: {{{command}: {{allowed: true, env: [], {rest}}}}}");
    let warnings = Whitelist::parse(&text).unwrap().lint();
    assert_eq!(warnings.len(), parts.len(), "{warnings:?}");
    for (warning, part) in warnings.iter().zip(parts) {
        assert!(
            warning.to_string().contains(part) && warning.to_string().contains(command),
            "{warning}"
        );
    }
}

#[test]
fn what_is_denied_gives_no_warning() {
    assert_eq!(
        Whitelist::parse("commands: {bash: {allowed: false}}").unwrap().lint(),
        []
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Literal patterns are the independent model of a whole match: equality.
    #[test]
    fn literal_patterns_allow_equal_arguments_only(pattern in "[a-c\n]{0,3}", arg in "[a-c\n]{0,3}") {
        let text = serde_json::json!({ "commands": { "x": { "allowed": true, "argumentPatterns": [pattern] } } });
        prop_assert_eq!(ask(&text.to_string(), "x", &[&arg]).is_ok(), pattern == arg);
    }

    #[test]
    fn no_text_is_too_much(text in "\\PC{0,200}") {
        let _ = Whitelist::parse(&text);
    }
}
