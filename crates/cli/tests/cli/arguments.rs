//! Wrong arguments, and help.

use crate::support::millpond;

#[test]
fn wrong_arguments_are_refused_with_what_would_be_right() {
    millpond([]).failed(2, &["Usage: millpond", "demo", "inspect", "verify"]);
    millpond(["inspekt", "."]).failed(2, &["inspekt", "Usage"]);
    millpond(["inspect"]).failed(2, &["<DIRECTORY>"]);
    millpond(["verify"]).failed(2, &["<DIRECTORY>"]);
    millpond(["savepoint", "."]).failed(2, &["<TARGET>"]);
    millpond(["verify", "--json", "."]).failed(2, &["--json"]);
    millpond(["demo", "--kills", "-1"]).failed(2, &["-1"]);
    millpond(["demo", "--kills", "10001"]).failed(2, &["10001", "10000"]);
    millpond(["demo", "--input", "a", "--socket", "b:1"]).failed(2, &["--input", "--socket"]);
}

#[test]
fn help_names_the_commands_and_not_the_one_that_is_for_the_demo_alone() {
    let help = millpond(["--help"]).succeeded().out;
    for command in ["demo", "inspect", "verify", "savepoint"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
    }
    assert!(!help.contains("worker"), "{help}");
    assert!(millpond(["--version"]).succeeded().out.starts_with("millpond "));
}
