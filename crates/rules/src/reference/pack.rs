//! The tables in a rule pack's README, made from its rules.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::path::Path;

use hypovisor_verdict::Moment;

use crate::rule::Rule;
use crate::rules::Rules;

/// How a table of rules begins.
const HEAD: &str = "| rule | source | kind | severity | what it cannot see |";

/// The README of a rule pack with its tables made anew: below each heading that ends in a directory's name, as in
/// ``## Generic: `generic/` ``, the first table of rules is that of the rules in that directory.
#[must_use]
pub fn renew_pack(readme: &str, rules: &Rules) -> String {
    let mut out = String::new();
    let mut directory = None;
    let mut replacing = false;
    for line in readme.lines() {
        if line.starts_with("## ") {
            directory =
                line.rsplit_once('`').and_then(|(rest, _)| rest.rsplit_once('`')).map(|(_, name)| name);
        }
        replacing &= line.starts_with('|');
        if line == HEAD
            && let Some(directory) = directory.and_then(|name| name.strip_suffix('/'))
        {
            replacing = true;
            table(&mut out, directory, rules);
        }
        if !replacing {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

fn table(out: &mut String, directory: &str, rules: &Rules) {
    let _ = write!(out, "{HEAD}\n| --- | --- | --- | --- | --- |\n");
    let mut listed: Vec<(&str, &Rule)> =
        rules.iter().filter_map(|rule| Some((file_in(directory, &rule.file)?, rule))).collect();
    listed.sort_by(|(_, left), (_, right)| natural(&left.id, &right.id));
    for (file, rule) in listed {
        let _ = writeln!(
            out,
            "| [{id}]({directory}/{file}) | {source} | {kind} | {severity} | {blind} |",
            id = rule.id,
            source = rule.references.join(", "),
            kind = kind(rule),
            severity = rule.severity.name(),
            blind = one_line(&rule.blind_spots),
        );
    }
}

/// The file's name, if it stands in this directory.
fn file_in<'f>(directory: &str, file: &'f Path) -> Option<&'f str> {
    let inside = file.parent()?.file_name()? == directory;
    file.file_name()?.to_str().filter(|_| inside)
}

/// What the rule looks at.
fn kind(rule: &Rule) -> &'static str {
    match rule {
        Rule { sequence: Some(_), .. } => "sequence",
        Rule { rate: Some(_), .. } => "rate",
        Rule { moment: Moment::Return, .. } => "result",
        Rule { moment: Moment::Entry, .. } => "arguments",
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// Numbers in a name count as numbers: XSA-7 stands before XSA-12.
fn natural(left: &str, right: &str) -> Ordering {
    let parts = |text: &str| -> Vec<(u64, String)> {
        let part =
            |part: &str| part.parse().map_or((u64::MAX, part.to_owned()), |number| (number, String::new()));
        text.split('-').map(part).collect()
    };
    parts(left).cmp(&parts(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_in_order() {
        let mut names = ["XSA-12-context", "XSA-7", "GEN-flood", "XSA-12", "XSA-111"];
        names.sort_by(|left, right| natural(left, right));
        assert_eq!(names, ["GEN-flood", "XSA-7", "XSA-12", "XSA-12-context", "XSA-111"]);
    }

    #[test]
    fn only_tables_of_rules_below_a_directory_are_made_anew() {
        let text = "id: T\ntitle: t\ndescription: d\nblind_spots: |\n  a | b\n  c\nreferences: [X]\nseverity: low\ntags: []\non: iret\n";
        let rules = Rules::from_texts(vec![("a/T.yaml".into(), text.to_owned())]).unwrap();
        let readme = format!("# R\n{HEAD}\n| old |\n\n## A: `a/`\n\n{HEAD}\n| old |\n\n| other |\n");
        let renewed = renew_pack(&readme, &rules);
        assert_eq!(
            renewed,
            format!(
                "# R\n{HEAD}\n| old |\n\n## A: `a/`\n\n{HEAD}\n| --- | --- | --- | --- | --- |\n\
                 | [T](a/T.yaml) | X | arguments | low | a \\| b c |\n\n| other |\n"
            )
        );
    }
}
