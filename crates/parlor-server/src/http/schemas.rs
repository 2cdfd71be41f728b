//! JSON schemas of the wire types for the descriptions of the interface.
//!
//! A type that only comes in and one that only goes out may differ under the same name (what has a
//! default need not be sent, but is always answered): such a type gets the ending `Input`.

use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

const PREFIX: &str = "#/components/schemas/";

/// Collects the schemas of everything that a description names.
pub struct Schemas {
    incoming: SchemaGenerator,
    outgoing: SchemaGenerator,
}

/// A schema that is to be named in a description, before names are final.
pub type Named = Value;

impl Default for Schemas {
    fn default() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Self {
            incoming: settings.clone().for_deserialize().into_generator(),
            outgoing: settings.for_serialize().into_generator(),
        }
    }
}

impl Schemas {
    /// Returns the schema of what a client sends.
    pub fn incoming<T: JsonSchema>(&mut self) -> Named {
        mark(self.incoming.subschema_for::<T>().to_value())
    }

    /// Returns the schema of what the server says.
    pub fn outgoing<T: JsonSchema>(&mut self) -> Named {
        self.outgoing.subschema_for::<T>().to_value()
    }

    /// Puts the final names into a description and returns the definitions for `components`.
    pub fn finish(mut self, document: &mut Value) -> Map<String, Value> {
        let mut outgoing: BTreeMap<String, Value> =
            self.outgoing.take_definitions(true).into_iter().collect();
        outgoing.values_mut().for_each(open);
        let incoming: BTreeMap<String, Value> =
            self.incoming.take_definitions(true).into_iter().collect();
        let renamed = differing(&incoming, &outgoing);
        let rename = |name: &str| {
            if renamed.contains(name) { format!("{name}Input") } else { name.to_owned() }
        };
        let mut all = outgoing;
        for (name, mut schema) in incoming {
            rewrite(&mut schema, PREFIX, &rename);
            all.insert(rename(&name), schema);
        }
        rewrite(document, INCOMING, &rename);
        all.into_iter().collect()
    }
}

/// Marks references to incoming schemas until their final names are known.
const INCOMING: &str = "incoming:";

fn mark(mut schema: Value) -> Value {
    for_each_ref(&mut schema, &mut |text| {
        if let Some(name) = text.strip_prefix(PREFIX) {
            *text = format!("{INCOMING}{name}");
        }
    });
    schema
}

fn rewrite(schema: &mut Value, prefix: &str, rename: &impl Fn(&str) -> String) {
    for_each_ref(schema, &mut |text| {
        if let Some(name) = text.strip_prefix(prefix) {
            *text = format!("{PREFIX}{}", rename(name));
        }
    });
}

/// Finds the names under which both sides have different schemas, through references.
fn differing(
    incoming: &BTreeMap<String, Value>,
    outgoing: &BTreeMap<String, Value>,
) -> BTreeSet<String> {
    let mut renamed: BTreeSet<String> = incoming
        .iter()
        .filter(|(name, schema)| outgoing.get(*name).is_some_and(|other| other != *schema))
        .map(|(name, _)| name.clone())
        .collect();
    loop {
        let before = renamed.len();
        for (name, schema) in incoming {
            let mut touched = false;
            for_each_ref(&mut schema.clone(), &mut |text| {
                touched |= text.strip_prefix(PREFIX).is_some_and(|name| renamed.contains(name));
            });
            if touched && outgoing.contains_key(name) {
                renamed.insert(name.clone());
            }
        }
        if renamed.len() == before {
            return renamed;
        }
    }
}

fn for_each_ref(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| for_each_ref(item, visit)),
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(text) if key == "$ref" => visit(text),
                    _ => for_each_ref(value, visit),
                }
            }
        }
        _ => {}
    }
}

/// Answers may gain fields: a client must not refuse what it does not know.
fn open(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(open),
        Value::Object(object) => {
            if object.get("additionalProperties") == Some(&json!(false)) {
                object.remove("additionalProperties");
            }
            object.values_mut().for_each(open);
        }
        _ => {}
    }
}
