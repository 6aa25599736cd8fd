//! The types of core/v1 that can be merged, as far as merging needs to know them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Every type inside Container and `PodSpec`, written by `tools/oracle` from the Go types' tags; see there for the form.
const CORE_V1: &str = include_str!("core_v1.txt");

static TYPES: LazyLock<BTreeMap<&'static str, Type>> = LazyLock::new(|| read(CORE_V1));

/// A struct of the API.
#[derive(Debug, Default)]
pub(super) struct Type {
    fields: BTreeMap<&'static str, Field>,
    /// Fields of which one at most may be set.
    choices: Vec<&'static str>,
    /// The field that says which of the others may be set.
    pub(super) discriminator: Option<&'static str>,
}

/// A field of a struct.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) form: Form,
    pub(super) merge: Merge,
    /// Whether the API leaves the field out when it has its zero value.
    pub(super) omits_zero: bool,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Scalar,
    Map,
    Struct(&'static str),
    /// A list of scalars.
    List,
    /// A list of structs.
    ListOf(&'static str),
    /// Not in the schema.
    Unknown,
}

/// How a list is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    Replace,
    /// As a set of scalars.
    ByValue,
    /// By this field of its elements.
    ByKey(&'static str),
}

impl Type {
    /// The type of that name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        TYPES.get(name)
    }

    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }

    /// Whether the field is a member of the struct's union.
    pub(super) fn is_choice(&self, name: &str) -> bool {
        self.choices.contains(&name)
    }

    /// Fills in what the Go types say in prose only: which fields exclude each other.
    fn set_union(&mut self, name: &str) {
        match name {
            "Volume" => {
                self.choices = self.fields.keys().copied().filter(|field| *field != "name").collect();
            }
            "EnvVarSource" => self.choices = self.fields.keys().copied().collect(),
            "Probe" => self.choices = vec!["exec", "grpc", "httpGet", "tcpSocket"],
            "LifecycleHandler" => self.choices = vec!["exec", "httpGet", "sleep", "tcpSocket"],
            "SeccompProfile" | "AppArmorProfile" => self.discriminator = Some("type"),
            _ => {}
        }
    }
}

impl Form {
    /// The struct a value or its elements are made of.
    pub(super) fn inner(self) -> Option<&'static Type> {
        match self {
            Self::Struct(name) | Self::ListOf(name) => TYPES.get(name),
            Self::Scalar | Self::Map | Self::List | Self::Unknown => None,
        }
    }
}

/// Reads the table. Lines that do not follow its form would be lost here; a test reads it with the same eyes and
/// counts.
fn read(text: &'static str) -> BTreeMap<&'static str, Type> {
    let mut types: BTreeMap<&'static str, Type> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        if let Some(next) = line.strip_prefix("struct ") {
            name = next;
        } else if let Some((field, read)) = read_field(line) {
            types.entry(name).or_default().fields.insert(field, read);
        }
    }
    for (name, kind) in &mut types {
        kind.set_union(name);
    }
    types
}

fn read_field(line: &'static str) -> Option<(&'static str, Field)> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let form = words.next()?;
    let form = match form.split_once('=') {
        None if form == "scalar" => Form::Scalar,
        None if form == "map" => Form::Map,
        None if form == "list" => Form::List,
        Some(("struct", name)) => Form::Struct(name),
        Some(("list", name)) => Form::ListOf(name),
        _ => return None,
    };
    let mut field = Field {
        form,
        merge: Merge::Replace,
        omits_zero: false,
    };
    for word in words {
        match word.split_once('=') {
            Some(("merge", key)) => field.merge = Merge::ByKey(key),
            None if word == "merge" => field.merge = Merge::ByValue,
            None if word == "zero" => field.omits_zero = true,
            _ => return None,
        }
    }
    Some((name, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        let lines = CORE_V1.lines().filter(|line| !line.starts_with("struct ")).count();
        let fields: usize = TYPES.values().map(|kind| kind.fields.len()).sum();
        assert_eq!(lines, fields);
        assert!(fields > 400, "only {fields} fields");
    }

    #[test]
    fn every_type_that_is_mentioned_has_fields() {
        for (name, kind) in TYPES.iter() {
            for (field, read) in &kind.fields {
                if let Form::Struct(inner) | Form::ListOf(inner) = read.form {
                    // ModifyVolumeStatus and the like: structs without fields do not occur in the table.
                    assert!(TYPES.contains_key(inner), "{name}.{field} is of unknown type {inner}");
                }
                if let Merge::ByKey(key) = read.merge {
                    let inner = read.form.inner().expect("lists merged by a key are lists of structs");
                    assert!(inner.field(key).is_some(), "{name}.{field} has no key {key}");
                }
            }
        }
    }

    #[test]
    fn unions_name_fields_that_exist() {
        for (name, kind) in TYPES.iter() {
            for choice in kind.choices.iter().chain(&kind.discriminator) {
                assert!(kind.field(choice).is_some(), "{name} has no field {choice}");
            }
        }
        let with_union = TYPES
            .values()
            .filter(|kind| !kind.choices.is_empty() || kind.discriminator.is_some());
        assert_eq!(with_union.count(), 6);
    }
}
