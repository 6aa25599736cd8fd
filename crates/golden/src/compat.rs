//! The table of accepted differences, for the page that tells users of `KServe` what differs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::{Accepted, Case};

const BEGIN: &str = "<!-- from golden/accepted.yaml; `make compat` writes it -->";
const END: &str = "<!-- end -->";

/// A Markdown table: why something differs, and what was recorded where it shows.
#[must_use]
pub fn table(accepted: &Accepted, cases: &[Case]) -> String {
    let known: BTreeMap<&str, &Case> = cases.iter().map(|case| (case.id.as_str(), case)).collect();
    let mut rows: Vec<(&str, BTreeSet<&str>)> = Vec::new();
    for (why, ids) in accepted.reasons() {
        let ids = ids.iter().map(String::as_str);
        match rows.iter_mut().find(|(known, _)| *known == why) {
            Some((_, all)) => all.extend(ids),
            None => rows.push((why, ids.collect())),
        }
    }
    let mut text = String::from("| difference | recorded cases |\n|---|---|\n");
    for (why, ids) in rows {
        let ids = ids.into_iter().map(|id| match known.get(id) {
            Some(case) => format!("{id} {}", case.description),
            None => id.to_owned(),
        });
        let ids: Vec<String> = ids.collect();
        writeln!(text, "| {} | {} |", cell(why), cell(&ids.join("; "))).expect("writing to a String cannot fail");
    }
    text
}

/// One line without a column's end.
fn cell(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

/// The page with this table in the place of the one it has; none if it has no place for it.
#[must_use]
pub fn with_table(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, with_table};

    #[test]
    fn only_the_table_is_replaced() {
        let page = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let expected = format!("above\n{BEGIN}\n\nnew\n\n{END}\nbelow\n");
        assert_eq!(with_table(&page, "new\n").as_deref(), Some(expected.as_str()));
        assert_eq!(
            with_table(&expected, "new\n").as_deref(),
            Some(expected.as_str()),
            "again"
        );
        assert_eq!(with_table("no place", "new\n"), None);
    }
}
