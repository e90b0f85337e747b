//! Which package may use which: the layer picture of `docs/ARCHITECTURE.md`.
//!
//! A package may use any lower layer; inside a layer only the arrows in [`ARROWS`]. Pure packages use only pure
//! packages, and `telemetry` for its event structs. `testkit` is a dev-dependency and nothing else.

use super::Finding;

/// A package of ours and where it stands.
struct Place {
    /// The folder below `crates/`, or the package's own top-level folder.
    name: &'static str,
    layer: u8,
    is_pure: bool,
}

const PLACES: &[Place] = &[
    Place { name: "budget", layer: 0, is_pure: true },
    Place { name: "slab", layer: 0, is_pure: true },
    Place { name: "wheel", layer: 0, is_pure: true },
    Place { name: "presence", layer: 1, is_pure: true },
    Place { name: "xmpp", layer: 1, is_pure: true },
    Place { name: "sip", layer: 1, is_pure: true },
    Place { name: "net", layer: 1, is_pure: false },
    Place { name: "runtime", layer: 1, is_pure: false },
    Place { name: "telemetry", layer: 1, is_pure: false },
    Place { name: "policy", layer: 2, is_pure: true },
    Place { name: "fanout", layer: 2, is_pure: true },
    Place { name: "store", layer: 2, is_pure: false },
    Place { name: "interwork", layer: 3, is_pure: true },
    Place { name: "edge", layer: 4, is_pure: false },
    Place { name: "broker", layer: 5, is_pure: false },
    Place { name: "admin", layer: 5, is_pure: false },
    Place { name: "testkit", layer: 5, is_pure: false },
    Place { name: "config", layer: 6, is_pure: false },
    Place { name: "loadtest", layer: 6, is_pure: false },
    Place { name: "tombolo", layer: 7, is_pure: false },
    Place { name: "fuzz", layer: 8, is_pure: false },
    Place { name: "benches", layer: 8, is_pure: false },
    Place { name: "xtask", layer: 0, is_pure: false },
];

/// (user, used) inside one layer.
const ARROWS: &[(&str, &str)] = &[
    ("wheel", "slab"),
    ("runtime", "presence"),
    ("admin", "broker"),
    ("sip", "telemetry"),
    ("xmpp", "telemetry"),
];

/// What brings a clock, a socket, a lock, a task, an actor or a log into a package, by the beginning of its name.
const IMPURE: &[&str] = &[
    "actix",
    "arc-swap",
    "async",
    "axum",
    "crossbeam",
    "futures",
    "governor",
    "hickory",
    "log",
    "mio",
    "parking_lot",
    "prometheus",
    "rand",
    "rayon",
    "redb",
    "rustls",
    "socket2",
    "time",
    "tokio",
    "tower",
    "tracing",
];

/// The only packages that know the actor framework; `benches` measures it.
const WITH_ACTORS: &[&str] = &["runtime", "edge", "broker", "admin", "tombolo", "benches"];

/// What one Cargo.toml says about who is used.
pub(crate) struct Package {
    pub(crate) file: String,
    pub(crate) name: String,
    pub(crate) uses: Vec<Use>,
}

/// One line of a dependency table.
pub(crate) struct Use {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) is_dev: bool,
    pub(crate) is_from_workspace: bool,
}

impl Package {
    /// Reads `text`, the Cargo.toml at the relative path `file`.
    pub(crate) fn read(file: &str, text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|error| format!("{file}: {error}"))?;
        let mut uses = Vec::new();
        collect(&table, text, &mut uses);
        if let Some(targets) = table.get("target").and_then(toml::Value::as_table) {
            for target in targets.values().filter_map(toml::Value::as_table) {
                collect(target, text, &mut uses);
            }
        }
        let folder = file.trim_end_matches("/Cargo.toml");
        let name = folder.rsplit('/').next().unwrap_or(folder).to_owned();
        Ok(Self { file: file.to_owned(), name, uses })
    }
}

fn collect(table: &toml::Table, text: &str, uses: &mut Vec<Use>) {
    for (key, is_dev) in [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
    {
        let Some(entries) = table.get(key).and_then(toml::Value::as_table) else { continue };
        for (name, value) in entries {
            uses.push(Use {
                name: name.clone(),
                line: line_of(text, key, name),
                is_dev,
                is_from_workspace: value.get("workspace").and_then(toml::Value::as_bool) == Some(true),
            });
        }
    }
}

/// Where `name` stands in the table `[key]` of `text`; the table's own line where it can't be seen.
fn line_of(text: &str, key: &str, name: &str) -> usize {
    let mut heading = 1;
    let mut is_inside = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            is_inside = line.contains(key);
            if is_inside {
                heading = index + 1;
            }
        }
        let rest = line.strip_prefix(name);
        if is_inside && rest.is_some_and(|rest| rest.starts_with([' ', '.', '='])) {
            return index + 1;
        }
    }
    heading
}

/// True where `name` (a folder of `crates/`) has to be pure.
pub(crate) fn is_pure(name: &str) -> bool {
    place(name).is_some_and(|place| place.is_pure)
}

/// True where `name` may use the actor framework.
pub(crate) fn may_use_actors(name: &str) -> bool {
    WITH_ACTORS.contains(&name)
}

fn place(name: &str) -> Option<&'static Place> {
    PLACES.iter().find(|place| place.name == name)
}

/// Our own package behind a dependency's name, as its folder is called.
fn ours(dependency: &str) -> Option<&str> {
    match dependency {
        "tombolo" => Some("tombolo"),
        "tombolo-load" => Some("loadtest"),
        "tombolo-benches" => Some("benches"),
        _ => dependency.strip_prefix("tombolo-"),
    }
}

/// Adds what `package` uses and may not.
pub(crate) fn check(package: &Package, findings: &mut Vec<Finding>) {
    let mut add = |line, rule, what: String, repair: String| {
        findings.push(Finding { file: package.file.clone(), line, rule, what, repair });
    };
    let Some(user) = place(&package.name) else {
        let repair = "give it a place in xtask/src/tidy/layers.rs and in docs/ARCHITECTURE.md".to_owned();
        add(1, "layer", format!("package {} stands in no layer", package.name), repair);
        return;
    };
    for used in &package.uses {
        let Some(name) = ours(&used.name) else {
            check_foreign(user, used, &mut add);
            continue;
        };
        let Some(target) = place(name) else {
            let repair = "give it a place in xtask/src/tidy/layers.rs".to_owned();
            add(used.line, "layer", format!("{} stands in no layer", used.name), repair);
            continue;
        };
        if target.name == "testkit" {
            if !used.is_dev {
                let repair = "move it to [dev-dependencies]".to_owned();
                add(used.line, "layer", "testkit is for tests only".to_owned(), repair);
            }
            continue;
        }
        let is_drawn = target.layer < user.layer || ARROWS.contains(&(user.name, target.name));
        if !is_drawn {
            let what = format!(
                "{} (layer {}) may not use {} (layer {})",
                user.name, user.layer, target.name, target.layer
            );
            add(
                used.line,
                "layer",
                what,
                "pass the value from above, or move the type down a layer".to_owned(),
            );
        } else if user.is_pure && !used.is_dev && !target.is_pure && target.name != "telemetry" {
            let what = format!("{} is pure, {} is not", user.name, target.name);
            add(used.line, "pure", what, "let the caller bring what is needed as an argument".to_owned());
        }
    }
}

fn check_foreign(user: &Place, used: &Use, add: &mut impl FnMut(usize, &'static str, String, String)) {
    if user.is_pure && !used.is_dev && IMPURE.iter().any(|begin| used.name.starts_with(begin)) {
        let what = format!("{} is pure and may not use {}", user.name, used.name);
        add(used.line, "pure", what, "time, randomness and input come in as arguments".to_owned());
    }
    if used.name.starts_with("actix") && !may_use_actors(user.name) {
        let what = format!("{} may not use {}", user.name, used.name);
        add(used.line, "actors", what, format!("only {} know actors", WITH_ACTORS.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::{Package, check};

    fn findings(folder: &str, dependencies: &str) -> Vec<String> {
        let text = format!("[package]\nname = \"x\"\n\n{dependencies}");
        let package = Package::read(&format!("crates/{folder}/Cargo.toml"), &text).expect("valid TOML");
        let mut findings = Vec::new();
        check(&package, &mut findings);
        findings.iter().map(|finding| format!("{}:{}", finding.rule, finding.line)).collect()
    }

    #[test]
    fn a_lower_layer_may_be_used_and_a_higher_may_not() {
        assert!(findings("broker", "[dependencies]\ntombolo-edge.workspace = true\n").is_empty());
        assert_eq!(findings("edge", "[dependencies]\ntombolo-broker.workspace = true\n"), ["layer:5"]);
        assert_eq!(findings("broker", "[dependencies]\ntombolo-config = { path = \"x\" }\n"), ["layer:5"]);
    }

    #[test]
    fn inside_a_layer_only_the_arrows_count() {
        assert_eq!(findings("xmpp", "[dependencies]\ntombolo-sip.workspace = true\n"), ["layer:5"]);
        assert_eq!(findings("broker", "[dependencies]\ntombolo-admin.workspace = true\n"), ["layer:5"]);
        assert!(findings("admin", "[dependencies]\ntombolo-broker.workspace = true\n").is_empty());
        assert!(findings("runtime", "[dependencies]\ntombolo-presence.workspace = true\n").is_empty());
    }

    #[test]
    fn the_layers_count_in_tests_and_for_single_targets_too() {
        let dev = "[dev-dependencies]\ntombolo-broker.workspace = true\n";
        assert_eq!(findings("edge", dev), ["layer:5"]);
        let target = "[target.'cfg(unix)'.dependencies]\ntombolo-broker.workspace = true\n";
        assert_eq!(findings("edge", target), ["layer:5"]);
    }

    #[test]
    fn testkit_is_a_dev_dependency_only() {
        assert_eq!(findings("edge", "[dependencies]\ntombolo-testkit.workspace = true\n"), ["layer:5"]);
        assert!(findings("xmpp", "[dev-dependencies]\ntombolo-testkit.workspace = true\n").is_empty());
    }

    #[test]
    fn a_pure_package_brings_no_clock_socket_lock_or_log() {
        for name in ["tokio", "tokio-util", "parking_lot", "rand", "tracing", "socket2", "crossbeam"] {
            let line = format!("[dependencies]\nbytes.workspace = true\n{name}.workspace = true\n");
            assert_eq!(findings("sip", &line), ["pure:6"], "{name}");
        }
        assert!(
            findings("sip", "[dependencies]\nbytes.workspace = true\ntombolo-telemetry.workspace = true\n")
                .is_empty()
        );
        assert_eq!(findings("interwork", "[dependencies]\ntombolo-store.workspace = true\n"), ["pure:5"]);
    }

    #[test]
    fn only_five_packages_know_actors() {
        assert_eq!(findings("net", "[dependencies]\nactix.workspace = true\n"), ["actors:5"]);
        assert!(
            findings("edge", "[dependencies]\nactix.workspace = true\nactix-rt.workspace = true\n")
                .is_empty()
        );
    }

    #[test]
    fn a_package_without_a_place_is_found() {
        assert_eq!(findings("surprise", ""), ["layer:1"]);
        assert_eq!(findings("tombolo", "[dependencies]\ntombolo-surprise.workspace = true\n"), ["layer:5"]);
    }
}
