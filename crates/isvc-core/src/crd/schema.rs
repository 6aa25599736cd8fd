//! A small vocabulary for structural `OpenAPI` v3 schemas.
//!
//! Only what a `CustomResourceDefinition` may contain can be said with it, and every field is given its description
//! where it is declared, so a schema reads as a table of fields.

use serde_json::{Map, Value, json};

use super::rules::Rule;

/// The strings the API server parses as a quantity (`resource.Quantity` in apimachinery): number, optional suffix.
const QUANTITY_PATTERN: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// One schema node.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schema(Map<String, Value>);

/// One property of an object.
#[derive(Clone, Debug)]
pub(super) struct Field {
    name: &'static str,
    schema: Schema,
    required: bool,
}

/// An optional property.
pub(super) fn field(name: &'static str, schema: Schema) -> Field {
    Field {
        name,
        schema,
        required: false,
    }
}

/// A property the API server insists on.
pub(super) fn required(name: &'static str, schema: Schema) -> Field {
    Field {
        name,
        schema,
        required: true,
    }
}

/// A string.
pub(super) fn string(description: &str) -> Schema {
    Schema::of("string").describe(description)
}

/// A boolean.
pub(super) fn boolean(description: &str) -> Schema {
    Schema::of("boolean").describe(description)
}

/// An integer of no stated width.
pub(super) fn integer(description: &str) -> Schema {
    Schema::of("integer").describe(description)
}

/// A 32-bit integer.
pub(super) fn int32(description: &str) -> Schema {
    integer(description).with("format", "int32")
}

/// A 64-bit integer.
pub(super) fn int64(description: &str) -> Schema {
    integer(description).with("format", "int64")
}

/// A port by number or name, or a count by number or percentage.
pub(super) fn int_or_string(description: &str) -> Schema {
    Schema(Map::new())
        .describe(description)
        .with("anyOf", json!([{"type": "integer"}, {"type": "string"}]))
        .with("x-kubernetes-int-or-string", true)
}

/// A Kubernetes quantity such as `500m` or `2Gi`.
pub(super) fn quantity(description: &str) -> Schema {
    int_or_string(description).with("pattern", QUANTITY_PATTERN)
}

/// An object with the given properties.
pub(super) fn object(description: &str, fields: impl IntoIterator<Item = Field>) -> Schema {
    item(fields).describe(description)
}

/// An object without a description of its own, for the elements of a list or map that has one.
pub(super) fn item(fields: impl IntoIterator<Item = Field>) -> Schema {
    let mut properties = Map::new();
    let mut needed = Vec::new();
    for field in fields {
        if field.required {
            needed.push(field.name);
        }
        let replaced = properties.insert(field.name.to_owned(), Value::Object(field.schema.0));
        assert!(replaced.is_none(), "property {} is declared twice", field.name);
    }
    let mut schema = Schema::of("object");
    if !properties.is_empty() {
        schema = schema.with("properties", properties);
    }
    if !needed.is_empty() {
        needed.sort_unstable();
        schema = schema.with("required", needed);
    }
    schema
}

/// An object whose content is stored as it comes, without a look at its fields.
pub(super) fn opaque(description: &str) -> Schema {
    object(description, []).keeping_unknown_fields()
}

/// Any value at all.
pub(super) fn any(description: &str) -> Schema {
    Schema(Map::new()).describe(description).keeping_unknown_fields()
}

/// A list.
pub(super) fn list(description: &str, element: Schema) -> Schema {
    Schema::of("array").describe(description).with("items", element.0)
}

/// A list of strings.
pub(super) fn strings(description: &str) -> Schema {
    list(description, Schema::of("string"))
}

/// A list of integers of the given format.
pub(super) fn integers(description: &str, format: &str) -> Schema {
    list(description, Schema::of("integer").with("format", format))
}

/// A map from free keys to strings.
pub(super) fn string_map(description: &str) -> Schema {
    map(description, Schema::of("string"))
}

/// A map from resource names to quantities.
pub(super) fn quantities(description: &str) -> Schema {
    let mut amount = quantity("");
    amount.0.remove("description");
    map(description, amount)
}

/// A map from free keys to the given values.
pub(super) fn map(description: &str, value: Schema) -> Schema {
    Schema::of("object")
        .describe(description)
        .with("additionalProperties", value.0)
}

impl Schema {
    fn of(kind: &str) -> Self {
        Self(Map::new()).with("type", kind)
    }

    fn with(mut self, keyword: &str, value: impl Into<Value>) -> Self {
        self.0.insert(keyword.to_owned(), value.into());
        self
    }

    /// The same schema under another description.
    pub(super) fn describe(self, description: &str) -> Self {
        self.with("description", description)
    }

    /// Filled in by the API server where the field is absent.
    pub(super) fn default(self, value: impl Into<Value>) -> Self {
        self.with("default", value)
    }

    /// Only these values.
    pub(super) fn one_of(self, values: &[&str]) -> Self {
        self.with("enum", values)
    }

    /// Only strings that match.
    pub(super) fn pattern(self, regex: &str) -> Self {
        self.with("pattern", regex)
    }

    /// A format such as `date-time`.
    pub(super) fn format(self, format: &str) -> Self {
        self.with("format", format)
    }

    /// Numbers no smaller.
    pub(super) fn at_least(self, minimum: i64) -> Self {
        self.with("minimum", minimum)
    }

    /// Numbers no larger.
    pub(super) fn at_most(self, maximum: i64) -> Self {
        self.with("maximum", maximum)
    }

    /// Strings no shorter.
    pub(super) fn min_length(self, length: u64) -> Self {
        self.with("minLength", length)
    }

    /// Strings no longer.
    pub(super) fn max_length(self, length: u64) -> Self {
        self.with("maxLength", length)
    }

    /// Lists no shorter.
    pub(super) fn min_items(self, items: u64) -> Self {
        self.with("minItems", items)
    }

    /// Lists no longer.
    pub(super) fn max_items(self, items: u64) -> Self {
        self.with("maxItems", items)
    }

    /// A list or object that server-side apply replaces as a whole.
    pub(super) fn atomic(self) -> Self {
        let keyword = if self.0.get("type") == Some(&json!("array")) {
            "x-kubernetes-list-type"
        } else {
            "x-kubernetes-map-type"
        };
        self.with(keyword, "atomic")
    }

    /// A list without duplicates.
    pub(super) fn set(self) -> Self {
        self.with("x-kubernetes-list-type", "set")
    }

    /// A list whose elements are told apart by these fields.
    pub(super) fn keyed_by(self, keys: &[&str]) -> Self {
        self.with("x-kubernetes-list-type", "map")
            .with("x-kubernetes-list-map-keys", keys)
    }

    /// Fields that are not declared are stored instead of pruned.
    pub(super) fn keeping_unknown_fields(self) -> Self {
        self.with("x-kubernetes-preserve-unknown-fields", true)
    }

    /// Rules the API server checks beside the shape.
    pub(super) fn rules(self, rules: impl IntoIterator<Item = Rule>) -> Self {
        let rules: Vec<Value> = rules.into_iter().map(Rule::into_json).collect();
        self.with("x-kubernetes-validations", rules)
    }

    /// The finished JSON.
    pub(super) fn into_json(self) -> Value {
        Value::Object(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_lists_its_properties_and_the_required_ones_sorted() {
        let schema = object(
            "A thing.",
            [
                required("b", string("B.")),
                field("c", int32("C.")),
                required("a", boolean("A.")),
            ],
        );
        assert_eq!(
            schema.into_json(),
            json!({
                "type": "object",
                "description": "A thing.",
                "required": ["a", "b"],
                "properties": {
                    "a": {"type": "boolean", "description": "A."},
                    "b": {"type": "string", "description": "B."},
                    "c": {"type": "integer", "format": "int32", "description": "C."},
                },
            })
        );
    }

    #[test]
    fn atomic_speaks_of_lists_and_of_objects() {
        assert_eq!(
            strings("Words.").atomic().into_json()["x-kubernetes-list-type"],
            "atomic"
        );
        assert_eq!(
            string_map("Pairs.").atomic().into_json()["x-kubernetes-map-type"],
            "atomic"
        );
    }

    #[test]
    #[should_panic(expected = "property a is declared twice")]
    fn a_property_cannot_be_declared_twice() {
        let _ = item([field("a", string("One.")), field("a", string("Two."))]);
    }

    #[test]
    fn the_quantity_pattern_takes_what_kubernetes_takes() {
        let pattern = regex::Regex::new(QUANTITY_PATTERN).expect("a valid pattern");
        for good in ["1", "500m", "2Gi", "1.5", ".5", "1e3", "-1", "+1k", "1E"] {
            assert!(pattern.is_match(good), "{good}");
        }
        for bad in ["", "1 Gi", "Gi", "1gi", "1.2.3"] {
            assert!(!pattern.is_match(bad), "{bad}");
        }
    }
}
