//! Tables for terminals.

/// Lines with columns of equal width, three spaces apart; no spaces at the end of a line.
///
/// ```
/// let text = leanserve_tests::table::aligned(&[vec!["SERVICE".into(), "READY".into()], vec!["a".into(), "True".into()]]);
/// assert_eq!(text, "SERVICE   READY\na         True\n");
/// ```
#[must_use]
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells.map(|(cell, &width)| format!("{cell:width$}")).collect();
        text.push_str(line.join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// A whole number with commas between thousands.
///
/// ```
/// assert_eq!(leanserve_tests::table::thousands(8_000), "8,000");
/// ```
#[must_use]
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    // Digits are ASCII, so every group is text.
    groups
        .iter()
        .map(|group| String::from_utf8_lossy(group))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::{aligned, thousands};

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a", "bb", "c"], vec!["länger", "", "d"], vec!["x"]];
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
            .collect();
        assert_eq!(aligned(&rows), "a        bb   c\nlänger        d\nx\n");
        assert_eq!(aligned(&[]), "");
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(thousands(number), expected);
        }
    }
}
