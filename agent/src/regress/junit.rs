//! JUnit XML of the contract's shape (section 19.3).
//!
//! Written by hand: the shape is five elements with fixed attributes (`skipped` and `time="0"` on `testsuites`, no
//! `name` there), which the usual crate does not write, and it would bring thirteen more.

use std::fmt::Write as _;

/// The cases of one run of graders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    /// The name.
    pub name: String,
    /// The cases, in their order.
    pub cases: Vec<Case>,
}

/// One case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The name.
    pub name: String,
    /// What it is grouped under.
    pub classname: String,
    /// Why it failed, in one line.
    pub failure: Option<String>,
    /// More lines about the failure; may be empty.
    pub more: String,
}

/// Renders the document.
#[must_use]
pub fn junit(suite: &Suite) -> String {
    let (tests, failures) =
        (suite.cases.len(), suite.cases.iter().filter(|case| case.failure.is_some()).count());
    let counts = format!(r#"tests="{tests}" failures="{failures}" errors="0" skipped="0" time="0""#);
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String cannot fail.
    _ = writeln!(out, "<testsuites {counts}>");
    _ = writeln!(out, "  <testsuite name=\"{}\" {counts}>", Xml(&suite.name));
    for case in &suite.cases {
        let (name, classname) = (Xml(&case.name), Xml(&case.classname));
        _ = write!(out, "    <testcase name=\"{name}\" classname=\"{classname}\" time=\"0\"");
        match &case.failure {
            None => out.push_str("></testcase>\n"),
            Some(why) => {
                let why = Xml(why);
                _ = write!(out, ">\n      <failure message=\"{why}\" type=\"regress_failure\">{why}");
                if !case.more.is_empty() {
                    _ = write!(out, "\n{}", Xml(&case.more));
                }
                out.push_str("</failure>\n    </testcase>\n");
            }
        }
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

/// Text that stands in an element or an attribute.
struct Xml<'a>(&'a str);

impl std::fmt::Display for Xml<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\n' | '\t' => f.write_char(c)?,
                // XML 1.0 has no way to write these at all.
                '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}')?,
                _ => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_the_contracts_and_text_cannot_leave_it() {
        let case = |name: &str, failure: Option<&str>| Case {
            name: name.to_owned(),
            classname: "run_x".to_owned(),
            failure: failure.map(str::to_owned),
            more: String::new(),
        };
        let suite = Suite {
            name: "gait.regress.default".to_owned(),
            cases: vec![case("diff", None), case("a\"<&\x1b>", Some("unexpected_diff,</failure>"))],
        };
        assert_eq!(
            junit(&suite),
            r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="2" failures="1" errors="0" skipped="0" time="0">
  <testsuite name="gait.regress.default" tests="2" failures="1" errors="0" skipped="0" time="0">
    <testcase name="diff" classname="run_x" time="0"></testcase>
    <testcase name="a&quot;&lt;&amp;�&gt;" classname="run_x" time="0">
      <failure message="unexpected_diff,&lt;/failure&gt;" type="regress_failure">unexpected_diff,&lt;/failure&gt;</failure>
    </testcase>
  </testsuite>
</testsuites>
"#
        );
    }
}
