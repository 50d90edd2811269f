//! What `/metrics` says.

use std::collections::BTreeMap;

use crate::{Api, eventually};

/// The labels of a sample.
pub type Labels = BTreeMap<String, String>;

/// A family of metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// What it means.
    pub help: String,
    /// Name, labels and value of each line.
    pub samples: Vec<(String, Labels, f64)>,
}

/// All families, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(pub BTreeMap<String, Family>);

impl Metrics {
    /// Asks the server.
    pub async fn of(api: &mut Api) -> Self {
        let answer = api.request("GET", "/metrics", "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Self::parse(&answer.body)
    }

    /// Reads the text format: each family is described before its samples, which stand together.
    pub fn parse(text: &str) -> Self {
        let mut families = BTreeMap::<String, Family>::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(described) = line.strip_prefix("# HELP ") {
                let (name, help) = described.split_once(' ').expect("a name and a text");
                current = name.to_owned();
                let family = Family { help: help.to_owned(), ..Family::default() };
                assert!(families.insert(current.clone(), family).is_none(), "{name} twice");
            } else {
                let family = families.get_mut(&current).expect("a described family");
                if let Some(kind) = line.strip_prefix("# TYPE ") {
                    family.kind = kind.strip_prefix(&format!("{current} ")).expect("the family's type").to_owned();
                } else {
                    let sample = sample(line);
                    assert!(sample.0.starts_with(&current), "{line} is none of {current}");
                    family.samples.push(sample);
                }
            }
        }
        Self(families)
    }

    /// The sum of the samples of a name that have all these labels; a name without samples counts as 0.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.0.values().flat_map(|family| &family.samples);
        let of_name = families.filter(|(sample, ..)| sample == name);
        of_name
            .filter(|(_, has, _)| labels.iter().all(|(label, value)| has.get(*label).is_some_and(|has| has == value)))
            .map(|(.., value)| value)
            .sum()
    }

    /// Waits until a name has a value: workers hand over what they counted twice a second.
    pub async fn reach(api: &mut Api, name: &str, labels: &[(&str, &str)], value: f64) -> Self {
        let reached = |metrics: &Self| (metrics.get(name, labels) - value).abs() < 1e-9;
        eventually(&format!("{name}{labels:?} is {value}"), async || Self::of(api).await, reached).await
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let value = value.parse().expect("a number");
    let Some((name, labels)) = series.split_once('{') else { return (series.to_owned(), Labels::new(), value) };
    let labels = labels.strip_suffix('}').expect("the end of the labels");
    // No label in a test holds a comma.
    let label = |text: &str| {
        let (name, value) = text.split_once('=').expect("a label");
        (name.to_owned(), value.trim_matches('"').to_owned())
    };
    (name.to_owned(), labels.split(',').map(label).collect(), value)
}
