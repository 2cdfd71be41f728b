//! The description of the HTTP interface: OpenAPI 3.1, from the table of routes and the wire types.

use serde_json::{Map, Value, json};

use super::{
    router::{Auth, Route, routes},
    schemas::Schemas,
};

/// Builds the document.
pub fn document() -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    let problem = schemas.outgoing::<parlor_proto::Problem>();
    for route in routes() {
        let operation = operation(&route, &mut schemas, &problem);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.as_str().to_lowercase(), operation);
        }
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Parlor",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Real-time messaging. Ids are decimal strings, times RFC 3339 in UTC, errors RFC 9457.",
            "license": {"name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT"},
        },
        "paths": paths,
    });
    let definitions = schemas.finish(&mut document);
    if let Some(root) = document.as_object_mut() {
        let security = json!({
            "bearer": {"type": "http", "scheme": "bearer"},
            "cookie": {"type": "apiKey", "in": "cookie", "name": "__Host-parlor"},
        });
        root.insert(
            "components".to_owned(),
            json!({"schemas": definitions, "securitySchemes": security}),
        );
    }
    document
}

fn operation(route: &Route, schemas: &mut Schemas, problem: &Value) -> Value {
    let mut responses = Map::new();
    for status in route.statuses {
        let mut response = json!({"description": "Success"});
        if let (Some(answer), Some(object)) = (route.answer, response.as_object_mut()) {
            let schema = answer(schemas);
            object.insert("content".to_owned(), json!({"application/json": {"schema": schema}}));
        }
        responses.insert(status.to_string(), response);
    }
    let refusal = json!({
        "description": "A refusal",
        "content": {"application/problem+json": {"schema": problem}},
    });
    responses.insert("default".to_owned(), refusal);
    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "responses": responses,
    });
    let Some(object) = operation.as_object_mut() else { return operation };
    if route.auth != Auth::None {
        object.insert("security".to_owned(), json!([{"bearer": []}, {"cookie": []}]));
    }
    if route.auth == Auth::Admin {
        object.insert("description".to_owned(), json!("Administrators only."));
    }
    if let Some(body) = route.body {
        let content = json!({"application/json": {"schema": body(schemas)}});
        object.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    let parts = route.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
    });
    let mut parameters: Vec<Value> = parts.collect();
    if let Some(query) = route.query {
        let schema = query(schemas);
        parameters.push(json!({
            "name": "query", "in": "query", "style": "form", "explode": true, "schema": schema,
        }));
    }
    if route.statuses.len() > 1 {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "schema": {"type": "string", "minLength": 1, "maxLength": 64},
        }));
    }
    if !parameters.is_empty() {
        object.insert("parameters".to_owned(), Value::Array(parameters));
    }
    operation
}

fn operation_id(route: &Route) -> String {
    let path = route.path.trim_start_matches("/api/v1");
    let words = path.split(['/', '.', '-']).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.map(|word| word.trim_matches(['{', '}'])).collect();
    format!("{}_{}", route.method.as_str().to_lowercase(), words.join("_"))
}
