//! The mechanical guards: borders between crates, the description of the interface, headers.

use std::{collections::BTreeSet, path::Path, process::Command};

use parlor_server::http::{asyncapi, openapi, router::routes};
use reqwest::Method;
use serde_json::Value;

use crate::world::{World, call};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn crates_import_in_one_direction_only() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut arrows = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap();
            if name.starts_with("parlor-") && dependency["kind"].is_null() {
                arrows.insert(format!("{} → {name}", package["name"].as_str().unwrap()));
            }
        }
    }
    let allowed = [
        "parlor-client → parlor-proto",
        "parlor-core → parlor-proto",
        "parlor-engines → parlor-core",
        "parlor-engines → parlor-proto",
        "parlor-load → parlor-client",
        "parlor-load → parlor-proto",
        "parlor-server → parlor-core",
        "parlor-server → parlor-engines",
        "parlor-server → parlor-proto",
    ];
    assert_eq!(arrows.into_iter().collect::<Vec<_>>(), allowed);
}

#[test]
fn the_committed_descriptions_are_what_the_server_says() {
    for (file, document) in
        [("openapi.json", openapi::document()), ("asyncapi.json", asyncapi::document())]
    {
        let committed = std::fs::read_to_string(root().join("docs/api").join(file)).unwrap();
        let committed: Value = serde_json::from_str(&committed).unwrap();
        assert_eq!(committed, document, "run `make gen` and commit docs/api/{file}");
    }
}

#[test]
fn every_route_is_described_and_every_reference_leads_somewhere() {
    let document = openapi::document();
    for route in routes() {
        let method = route.method.as_str().to_lowercase();
        let operation = &document["paths"][route.path][&method];
        assert!(operation["responses"].is_object(), "{method} {}", route.path);
        assert!(!route.statuses.is_empty(), "{method} {}", route.path);
    }
    for document in [document, asyncapi::document()] {
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let world = World::start().await;
    for path in
        ["/", "/chats/1", "/healthz", "/metrics", "/api/v1/users/me", "/api/v1/nothing", "/x.js"]
    {
        let answer = call(world.address, Method::GET, path, None, None).await;
        let policy = answer.headers["content-security-policy"].to_str().unwrap().to_owned();
        assert!(
            policy.contains("default-src 'none'")
                && policy.contains("require-trusted-types-for 'script'")
        );
        assert!(
            policy.contains(&format!("connect-src 'self' ws://{};", world.address)),
            "{policy}"
        );
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.headers[name], value, "{path}");
        }
        assert!(answer.headers.get("strict-transport-security").is_none(), "plain HTTP");
    }
}

/// Every requirement has evidence of each kind it needs, by tests that exist and run, or is open.
#[test]
fn the_acceptance_map_holds() {
    let map = std::fs::read_to_string(root().join("docs/acceptance.json")).unwrap();
    let map: Value = serde_json::from_str(&map).unwrap();
    let (kinds, evidence) =
        (map["kinds"].as_object().unwrap(), map["evidence"].as_object().unwrap());
    let open: BTreeSet<&str> =
        map["open"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let sources = sources(&root().join("crates"));
    let journeys = journeys(&root().join("web/e2e"));
    for (id, needed) in kinds {
        let Some(entry) = evidence.get(id) else {
            assert!(open.contains(id.as_str()), "{id} has neither evidence nor a place in open");
            continue;
        };
        assert!(!open.contains(id.as_str()), "{id} is open and has evidence");
        let tests = entry["tests"].as_array().unwrap();
        let tests: Vec<_> =
            tests.iter().map(|t| t.as_str().unwrap().split_once(' ').unwrap()).collect();
        for kind in needed.as_str().unwrap().split(' ') {
            assert!(tests.iter().any(|(letter, _)| *letter == kind), "{id} lacks kind {kind}");
        }
        for (letter, name) in tests {
            if letter == "E" {
                let is_there = journeys.contains(&format!("\ntest(\"{name}\""));
                assert!(is_there, "{id}: no journey {name:?}");
                continue;
            }
            let place = sources.find(&format!("fn {name}("));
            let place = place.unwrap_or_else(|| panic!("{id}: no test {name}"));
            let before = sources[..place].lines().rev().take(4).collect::<Vec<_>>().join("\n");
            assert!(
                before.contains("test]") && !before.contains("ignore"),
                "{id}: {name} is no test"
            );
        }
    }
    assert!(evidence.keys().all(|id| kinds.contains_key(id)), "evidence for an id that is none");
    assert!(open.len() <= MOST_OPEN, "the list of open requirements only shrinks");
}

/// Lower it with every requirement that gets its evidence.
const MOST_OPEN: usize = 159;

fn journeys(folder: &Path) -> String {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.to_str().unwrap().ends_with(".test.mjs"));
    files.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    text
}
