//! The formats in which a scraper may ask for the page.

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `OpenMetrics` 1.0, which Prometheus asks for.
    OpenMetrics,
    /// The older text format of Prometheus, which everything that reads metrics knows.
    Prometheus,
}

impl Format {
    /// The format to answer with, by the request's header `Accept`. Only who names `OpenMetrics` gets it.
    pub(crate) fn accepted(accept: Option<&str>) -> Self {
        let ranges = accept.unwrap_or_default().split(',');
        let mut names = ranges.map(|range| range.split(';').next().unwrap_or_default().trim());
        if names.any(|name| name.eq_ignore_ascii_case("application/openmetrics-text")) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// An `OpenMetrics` page in the older format: there the name in the comments is that of the series, a type `info` does not
/// exist, and nothing marks the end.
///
/// Source: "Exposition formats" in the documentation of Prometheus, and the specification of `OpenMetrics` 1.0.
pub(super) fn to_prometheus(page: &str) -> String {
    let mut converted = String::with_capacity(page.len() + 1024);
    let mut push = |parts: &[&str]| {
        for part in parts {
            converted.push_str(part);
        }
        converted.push('\n');
    };
    let mut help = "";
    for line in page.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            push(&[line]);
            continue;
        };
        if let Some(text) = comment.strip_prefix("HELP ") {
            help = text.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = comment.strip_prefix("TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            push(&["# HELP ", name, suffix, " ", help]);
            push(&["# TYPE ", name, suffix, " ", kind]);
        }
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_openmetrics_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, expected) in [
            (Some(prometheus), Format::OpenMetrics),
            (Some("text/plain"), Format::Prometheus),
            (Some("*/*"), Format::Prometheus),
            (Some(""), Format::Prometheus),
            (None, Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn types_and_names_are_those_of_the_older_format() {
        let page = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"y # z\"} 1\n\
                    # HELP c Version.\n# TYPE c info\nc_info{v=\"1\"} 1\n\
                    # HELP d_seconds Time.\n# TYPE d_seconds gauge\n# UNIT d_seconds seconds\nd_seconds 0.5\n# EOF\n";
        let expected = "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"y # z\"} 1\n\
                        # HELP c_info Version.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n\
                        # HELP d_seconds Time.\n# TYPE d_seconds gauge\nd_seconds 0.5\n";
        assert_eq!(to_prometheus(page), expected);
    }
}
