//! The text format of Prometheus, version 0.0.4: lines of names, labels and numbers.

use std::fmt::{Display, Write as _};

/// The media type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the numbers of a family are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Writes families one after the other. Writing into memory cannot fail, so nothing here does.
#[derive(Debug)]
pub(super) struct Text<'a> {
    prefix: &'a str,
    /// Labels that all samples have.
    common: &'a [(&'a str, &'a str)],
    family: &'static str,
    out: String,
}

impl<'a> Text<'a> {
    pub(super) fn new(prefix: &'a str, common: &'a [(&'a str, &'a str)]) -> Self {
        Self { prefix, common, family: "", out: String::with_capacity(16 * 1024) }
    }

    /// Begins a family; its samples follow.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.family = name;
        let prefix = self.prefix;
        let _ = writeln!(self.out, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}");
    }

    /// One number of the family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.part("", labels, value);
    }

    /// A part of a histogram, such as `_sum`.
    pub(super) fn part(&mut self, part: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.out, "{}{}{part}", self.prefix, self.family);
        let mut before = '{';
        for (name, text) in labels.iter().chain(self.common) {
            let _ = write!(self.out, "{before}{name}=\"");
            escape(&mut self.out, text);
            self.out.push('"');
            before = ',';
        }
        if before == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}

/// In the value of a label, three characters need a backslash.
fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_follow_their_family_and_labels_are_escaped() {
        let mut text = Text::new("p_", &[("port", "1")]);
        text.family("a_total", Kind::Counter, "What it is.");
        text.sample(&[("app_id", "x\"\\\ny")], 7);
        text.family("b", Kind::Histogram, "Times.");
        text.part("_sum", &[], 0.000_25);
        let expected = "# HELP p_a_total What it is.\n# TYPE p_a_total counter\np_a_total{app_id=\"x\\\"\\\\\\ny\",port=\"1\"} 7\n\
                        # HELP p_b Times.\n# TYPE p_b histogram\np_b_sum{port=\"1\"} 0.00025\n";
        assert_eq!(text.finish(), expected);
    }
}
