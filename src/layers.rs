//! A test that layers use only those below them, as `ARCHITECTURE.md` draws them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// From the bottom to the top; each may use its own row and those before it. `telemetry` stands beside: all use its
/// metrics, and it reads what others count.
const LAYERS: [&[&str]; 11] = [
    &[
        "client_address",
        "error",
        "http_client",
        "origins",
        "places",
        "priority",
        "random",
        "rates",
        "settings",
        "tcp",
        "ticks",
        "tls",
        "transcode",
    ],
    &["store", "media"],
    &["auth", "cluster", "mixer", "recorder"],
    &["rooms", "streaming"],
    &["chat", "playback", "recordings"],
    &["notify"],
    &["gateway"],
    &["alerts"],
    &["vitals"],
    &["api"],
    &["batch", "doctor", "server"],
];

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The crate's modules that a source text names as `crate::module` or in `crate::{…}`.
fn used(text: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut modules = Vec::new();
    for rest in text.split("crate::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            modules.push(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if depth == 0 && begins && !c.is_whitespace() => {
                    modules.push(word(&list[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    modules
}

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(path).expect("the folder is there") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn layers_use_only_those_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut checked = 0;
    for file in files {
        let relative = file.strip_prefix(&root).expect("below it");
        let first = relative.iter().next().and_then(|part| part.to_str()).expect("a name");
        let Some(own) = rank(first.trim_end_matches(".rs")) else { continue };
        for module in used(&fs::read_to_string(&file).expect("readable")) {
            let allowed = rank(&module).is_none_or(|layer| layer <= own);
            assert!(allowed, "{} uses `{module}`, which is above it", relative.display());
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn uses_are_found_in_every_form() {
    let text = "use crate::{\n    a::{b, c},\n    d,\n};\nuse crate::e::f; crate::g!(); pub(crate) fn h() {}";
    assert_eq!(used(text), ["a", "d", "e", "g"]);
}
