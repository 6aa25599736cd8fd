//! Pure: the warnings in an answer of the API server, and which policies they tell of.
//!
//! Source of the form: `pkg/endpoints/filters/warning.go` of k8s.io/apiserver and `net.NewWarningHeader` of
//! k8s.io/apimachinery; RFC 7234, section 5.5.

use http::{HeaderMap, header};

/// All warnings of an answer share so many characters. Source: `truncateAtTotalRunes`.
const MOST: usize = 4 * 1024;
/// Where there were more, each is cut to so many, and what does not fit then is dropped. Source: `truncateItemRunes`.
const CUT: usize = 256;

/// The warnings of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Warnings {
    pub(super) broken: Vec<Broken>,
    /// Some may be missing, because there were too many.
    pub(super) cut: bool,
}

/// A binding whose policy the service breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) binding: String,
    pub(super) message: String,
}

impl Warnings {
    /// Those of an answer with these headers; none if one cannot be read.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let mut warnings = Self::default();
        let mut length = 0;
        for value in headers.get_all(header::WARNING) {
            let mut rest = std::str::from_utf8(value.as_bytes()).ok()?.trim();
            while !rest.is_empty() {
                let (text, remainder) = one(rest)?;
                length += text.chars().count();
                warnings.broken.extend(broken(&text));
                rest = remainder;
            }
        }
        // One more might not have fitted from here on.
        warnings.cut = length + CUT >= MOST;
        Some(warnings)
    }
}

/// The text of the first warning, and what comes after it.
fn one(header: &str) -> Option<(String, &str)> {
    let (_code, rest) = header.split_once(' ')?;
    let (_agent, rest) = rest.split_once(' ')?;
    let (text, rest) = quoted(rest)?;
    let rest = rest.trim_start();
    // A date may follow, without any escape in it.
    let rest = match rest.strip_prefix('"') {
        Some(date) => date.split_once('"')?.1.trim_start(),
        None => rest,
    };
    let rest = match rest.strip_prefix(',') {
        Some(next) => next.trim_start(),
        None if rest.is_empty() => rest,
        None => return None,
    };
    Some((text, rest))
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let content = text.strip_prefix('"')?;
    let mut unquoted = String::new();
    let mut chars = content.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((unquoted, &content[at + 1..])),
            '\\' => unquoted.push(chars.next()?.1),
            c => unquoted.push(c),
        }
    }
    None
}

/// What the API server says of a rule that is not kept, and nothing else. Names of objects have no quotes in them.
fn broken(text: &str) -> Option<Broken> {
    let rest = text.strip_prefix("Validation failed for ValidatingAdmissionPolicy '")?;
    let (_policy, rest) = rest.split_once("' with binding '")?;
    let (binding, message) = rest.split_once('\'')?;
    Some(Broken {
        binding: binding.to_owned(),
        message: message.strip_prefix(": ").unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(values: &[String]) -> HeaderMap {
        let value = |text: &String| HeaderValue::from_bytes(text.as_bytes()).expect("a header");
        values.iter().map(|text| (header::WARNING, value(text))).collect()
    }

    fn failed(binding: &str, message: &str) -> String {
        format!("Validation failed for ValidatingAdmissionPolicy 'leanserve-00' with binding '{binding}': {message}")
    }

    fn header_of(text: &str) -> String {
        format!("299 - \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }

    #[test]
    fn warnings_of_policies_are_told_from_others() {
        let read = Warnings::read(&headers(&[
            header_of("unknown field \"spec.x\""),
            header_of(&failed("leanserve-audit-a", "say \"no\" \\ to 'this': \u{e4}")),
            format!(
                "{} \"Sat, 25 Aug 2012 23:34:45 GMT\", {}",
                header_of(&failed("leanserve-audit-b", "x, y")),
                header_of(&failed("leanserve-audit-c", ""))
            ),
        ]));
        let read = read.expect("readable");
        let broken: Vec<_> = read
            .broken
            .iter()
            .map(|broken| (broken.binding.as_str(), broken.message.as_str()))
            .collect();
        assert_eq!(
            broken,
            [
                ("leanserve-audit-a", "say \"no\" \\ to 'this': \u{e4}"),
                ("leanserve-audit-b", "x, y"),
                ("leanserve-audit-c", ""),
            ]
        );
        assert!(!read.cut);
    }

    #[test]
    fn what_was_cut_still_names_its_binding() {
        let whole = failed(&"b".repeat(117), "a long message that is cut somewhere");
        let cut: String = whole.chars().take(CUT).collect();
        let read = Warnings::read(&headers(&[header_of(&cut)])).expect("readable");
        assert_eq!(read.broken[0].binding, "b".repeat(117));
    }

    #[test]
    fn an_answer_with_no_room_left_may_lack_some() {
        let text = failed("leanserve-audit-a", &"x".repeat(CUT));
        let text: String = text.chars().take(CUT).collect();
        let with = |number: usize| {
            Warnings::read(&headers(&vec![header_of(&text); number]))
                .expect("readable")
                .cut
        };
        assert!(!with(14));
        assert!(with(15) && with(16));
        let long = failed("leanserve-audit-a", &"\u{e4}".repeat(MOST));
        assert!(Warnings::read(&headers(&[header_of(&long)])).expect("readable").cut);
    }

    #[test]
    fn what_cannot_be_read_is_no_absence_of_warnings() {
        for header in [
            "299",
            "299 -",
            "299 - text",
            "299 - \"open",
            "299 - \"a\" b",
            "299 - \"a\\",
        ] {
            assert_eq!(Warnings::read(&headers(&[header.to_owned()])), None, "{header}");
        }
        assert_eq!(Warnings::read(&HeaderMap::new()), Some(Warnings::default()));
    }

    proptest! {
        #[test]
        fn any_message_is_read_as_it_was_written(messages in prop::collection::vec("\\PC{0,80}", 0..5)) {
            let values: Vec<String> = messages.iter().map(|message| header_of(&failed("b", message))).collect();
            let read = Warnings::read(&headers(&values)).expect("readable");
            let found: Vec<String> = read.broken.into_iter().map(|broken| broken.message).collect();
            let joined = Warnings::read(&headers(&[values.join(", ")])).expect("readable");
            prop_assert_eq!(&found, &joined.broken.into_iter().map(|broken| broken.message).collect::<Vec<_>>());
            prop_assert_eq!(found, messages);
        }
    }
}
