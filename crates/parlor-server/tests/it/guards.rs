//! The mechanical guards: borders between crates, the description of the interface, headers, and
//! that the pages of the documentation name what exists.

use std::{collections::BTreeSet, path::Path, process::Command};

use parlor_proto::{
    CloseCode, ErrorCode, Limits,
    error::Reconnect,
    frame::{ServerFrame, parse_client},
};
use parlor_server::{
    config::Config,
    error::Refusal,
    http::{asyncapi, openapi, router::routes},
};
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
    let journeys = files(&root().join("web/e2e"), ".test.mjs");
    let vitest = files(&root().join("web/tests"), ".test.ts")
        + &files(&root().join("sdk/ts/tests"), ".test.ts");
    let loads = read("crates/parlor-load/src/bench.rs");
    let figures = read("docs/performance.md");
    let torture = read("crates/parlor-load/src/torture.rs");
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
            let is_there = match letter {
                "E" => journeys.contains(&format!("\ntest(\"{name}\"")),
                "D" => has_section(name),
                "L" => loads.contains(&format!("\"{name}\"")) && figures.contains(name),
                "C" if torture.contains(&format!("\"{name}\" =>")) => true,
                "U" if vitest.contains(&format!(" it(\"{name}\"")) => true,
                _ => is_rust_test(&sources, name),
            };
            assert!(is_there, "{id}: {letter} {name} is not there, or is ignored");
        }
    }
    assert!(evidence.keys().all(|id| kinds.contains_key(id)), "evidence for an id that is none");
    assert!(open.len() <= MOST_OPEN, "the list of open requirements only shrinks");
}

/// Lower it with every requirement that gets its evidence.
const MOST_OPEN: usize = 122;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// A test that runs: a function of this name, marked as a test and not as ignored.
fn is_rust_test(sources: &str, name: &str) -> bool {
    let Some(place) = sources.find(&format!("fn {name}(")) else { return false };
    let before = sources[..place].lines().rev().take(4).collect::<Vec<_>>().join("\n");
    before.contains("test]") && !before.contains("ignore")
}

/// A section of a page: `docs/protocol.md#Order`.
fn has_section(name: &str) -> bool {
    let (path, title) = name.split_once('#').unwrap();
    read(path).lines().any(|line| line.trim_start_matches('#') == format!(" {title}"))
}

/// The text of all files of a folder whose names end so.
fn files(folder: &Path, end: &str) -> String {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.to_str().unwrap().ends_with(end));
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

fn page(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The Markdown pages at and below a path, with their paths.
fn pages(path: &str) -> Vec<(String, String)> {
    let at = root().join(path);
    if at.is_file() {
        return if path.ends_with(".md") {
            vec![(path.to_owned(), page(path))]
        } else {
            Vec::new()
        };
    }
    let entries = std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name());
    entries.flat_map(|name| pages(&format!("{path}/{}", name.to_str().unwrap()))).collect()
}

/// The lines of a page that are not in a block of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    text.split("```").step_by(2).flat_map(str::lines)
}

fn holds_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let is_whole =
        |at: usize| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part);
    text.match_indices(word).any(|(at, _)| is_whole(at))
}

/// A path in inline code is a file. The names in inline code right behind it (after a space, a comma
/// or ", then ") are items of that file.
#[test]
fn the_flow_pages_name_what_exists() {
    const ITEMS: [&str; 6] = ["fn", "struct", "enum", "trait", "const", "macro_rules!"];
    let is_path = |text: &str| {
        ["crates/", "sdk/", "web/", "docs/"].iter().any(|folder| text.starts_with(folder))
    };
    let mut n_names = 0;
    for (path, text) in pages("docs/flows").into_iter().chain(pages("docs/how-to")) {
        for line in prose(&text) {
            let parts: Vec<&str> = line.split('`').collect();
            assert!(parts.len() % 2 == 1, "{path}: unpaired backticks: {line}");
            let mut file: Option<(&str, String)> = None;
            for place in (1..parts.len()).step_by(2) {
                let code = parts[place];
                if is_path(code) {
                    let found = root().join(code);
                    assert!(found.exists(), "{path} names {code}, which does not exist");
                    file = std::fs::read_to_string(found).ok().map(|text| (code, text));
                    continue;
                }
                let follows = matches!(parts[place - 1], " " | ", " | ", then ");
                let Some((name, text)) = file.as_ref().filter(|_| follows) else {
                    file = None;
                    continue;
                };
                let is_there = match name.ends_with(".rs") {
                    true => ITEMS.iter().any(|item| holds_word(text, &format!("{item} {code}"))),
                    false => holds_word(text, code),
                };
                assert!(is_there, "{path}: no {code} in {name}");
                n_names += 1;
            }
        }
    }
    assert!(n_names > 150, "only {n_names} names were found");
}

#[test]
fn links_between_the_pages_lead_to_files() {
    let mut n_links = 0;
    for (path, text) in
        ["docs", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].into_iter().flat_map(pages)
    {
        let folder = root().join(&path).parent().unwrap().to_owned();
        for link in prose(&text).flat_map(|line| line.split("](").skip(1)) {
            let target = link.split([')', '#']).next().unwrap();
            if target.contains("://") || target.is_empty() {
                continue;
            }
            assert!(folder.join(target).exists(), "{path}: {target} leads nowhere");
            n_links += 1;
        }
    }
    assert!(n_links > 50, "only {n_links} links were found");
}

#[test]
fn the_protocol_page_says_every_code_limit_and_frame() {
    let page = page("docs/protocol.md");
    let says = |row: String| assert!(page.contains(&row), "docs/protocol.md lacks {row}");
    for code in ErrorCode::ALL {
        let status = Refusal::new(*code, "").status().as_u16();
        let retry = if code.may_retry() { "yes" } else { "no" };
        says(format!("\n| `{code}` | {status} | {retry} | "));
    }
    for code in CloseCode::ALL {
        let back = match code.reconnect() {
            Reconnect::Yes => "yes",
            Reconnect::AfterDelay => "after the delay",
            Reconnect::No => "no",
        };
        says(format!("\n| {} | `{}` | {back} | ", code.code(), code.name()));
    }
    let limits = serde_json::to_value(Limits::default()).unwrap();
    for (key, value) in limits.as_object().unwrap() {
        says(format!("\n| `{key}` | {value} | "));
    }
    let (from_client, from_server) = page.split_once("\n### Frames from the server\n").unwrap();
    let document = asyncapi::document();
    for name in document["components"]["messages"].as_object().unwrap().keys() {
        let (side, t) = name.split_once('_').unwrap();
        let part = if side == "client" { from_client } else { from_server };
        let sample = part.lines().find(|line| line.starts_with(&format!("{{\"t\":\"{t}\"")));
        let sample = sample.unwrap_or_else(|| panic!("docs/protocol.md has no sample of {name}"));
        if side == "client" {
            let mut frames = parse_client(sample, &Limits::default()).unwrap();
            assert!(frames.remove(0).is_ok(), "{sample}");
        } else {
            let frame: ServerFrame = serde_json::from_str(sample).unwrap();
            let sample: Value = serde_json::from_str(sample).unwrap();
            assert_eq!(serde_json::to_value(&frame).unwrap(), sample);
        }
    }
}

#[test]
fn the_protocol_page_says_which_streams_are_ordered() {
    let page = page("docs/protocol.md");
    let order = page.split("\n## ").find(|section| section.starts_with("Order\n")).unwrap();
    for (stream, kind) in [
        ("the log of one chat", "strict: `seq`"),
        ("the own account stream", "strict: `seq`"),
        ("typing", "none; may be lost"),
        ("presence", "none; may be lost"),
    ] {
        assert!(order.contains(&format!("\n| {stream} | {kind}")), "{stream}");
    }
}

#[test]
fn the_configuration_page_says_every_key() {
    let page = page("docs/operations/configuration.md");
    let mut rows = Vec::new();
    key_rows("", &serde_json::to_value(Config::default()).unwrap(), &mut rows);
    for row in &rows {
        assert!(page.contains(row), "docs/operations/configuration.md lacks {row}");
    }
    assert_eq!(page.matches(" | `PARLOR_").count(), rows.len(), "a key that is gone");
}

/// The row of each key: its name, its default, its variable.
fn key_rows(key: &str, value: &Value, rows: &mut Vec<String>) {
    let default = match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                key_rows(&path, value, rows);
            }
            return;
        }
        Value::Null | Value::Array(_) => "none".to_owned(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    };
    let variable = key.replace('.', "__").to_uppercase();
    rows.push(format!("\n| `{key}` | {default} | `PARLOR_{variable}` | "));
}

#[tokio::test]
async fn every_metric_is_explained() {
    let world = World::start().await;
    // Requests are told of once there was one.
    call(world.address, Method::GET, "/healthz", None, None).await;
    let metrics = call(world.address, Method::GET, "/metrics", None, None).await;
    let told =
        metrics.body.as_str().unwrap().lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<&str> = told.filter_map(|line| line.split(' ').next()).collect();
    let page = page("docs/operations/run-it.md");
    for name in &names {
        assert!(page.contains(&format!("\n| `{name}` | ")), "run-it.md does not explain {name}");
    }
    assert_eq!(page.matches("\n| `parlor_").count(), names.len(), "a metric that is gone");
}
