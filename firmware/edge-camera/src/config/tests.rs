use super::*;
use proptest::prelude::*;

/// Resolves a file of this text under flags; the errors where it is wrong.
fn resolved(text: &str, more: &[&str]) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("camera.toml");
    std::fs::write(&path, text).unwrap();
    let mut words: Vec<OsString> = vec!["edge-camera".into(), "--config".into(), path.into()];
    words.extend(more.iter().map(OsString::from));
    resolve(&words).map_err(|failure| {
        assert_eq!(failure.code, 2);
        format!("{:#}", failure.cause)
    })
}

fn value(settings: &Settings, key: &str) -> Vec<String> {
    settings.values.iter().find(|v| v.key == key).unwrap().texts.clone()
}

/// The example of the README, with every key that is commented out in force.
fn example() -> String {
    let readme = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md"));
    let block = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let key = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let on = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if key(rest) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    block.lines().map(on).collect()
}

#[test]
fn every_flag_is_a_key_and_stands_in_the_readme_with_a_value_that_is_allowed() {
    // `slots` and `package` exclude each other, so each is looked at without the other.
    for other in ["slots", "package"] {
        let text: String = example().lines().filter(|l| !l.starts_with(other)).map(|l| format!("{l}\n")).collect();
        let settings = resolved(&text, &[]).unwrap();
        for arg in Args::command().get_arguments() {
            let key = arg.get_long().unwrap();
            if key != other && !COMMAND_LINE_ONLY.contains(&key) {
                assert!(text.contains(&format!("\n{key} = ")), "the README's example lacks {key}");
                assert!(!value(&settings, key).is_empty(), "{key}");
            }
        }
    }
}

#[test]
fn what_is_wrong_is_named_with_file_line_key_and_what_is_allowed() {
    let table: &[(&str, &[&str])] = &[
        ("top = 3\n\ntreshold = 0.5\n", &["unknown key `treshold` in camera.toml line 3; did you mean `threshold`?"]),
        ("log_max_size = '1MB'", &["unknown key `log_max_size`", "did you mean `log-max-size`?"]),
        ("colour-of-the-sky = 'blue'", &["unknown key `colour-of-the-sky`", "--help"]),
        ("config = 'other.toml'", &["`config` in camera.toml line 1 is a flag of the command line only"]),
        ("link-stdio = true", &["`link-stdio` in camera.toml line 1 is a flag of the command line only"]),
        ("link = ['unix:x', 'ssh:pi@camera']", &["camera.toml line 1: `link`", "a camera listens at"]),
        ("link = 'tcp:0.0.0.0:7070'", &["`link`", "names no key"]),
        ("[log]\npath = 'x'", &["camera.toml line 1", "without tables"]),
        ("threshold = 1.5", &["camera.toml line 1: `threshold`", "1.5", "a number from 0 to 1"]),
        ("threshold = 'high'", &["`threshold`", "high", "a number from 0 to 1"]),
        ("threads = 0", &["`threads`", "0", "a whole number from 1 to 256 is needed"]),
        ("top = -1", &["`top`", "-1", "a whole number from 0 to 65536"]),
        ("frames = 1.5", &["`frames`", "1.5", "a whole number is needed"]),
        ("once = 'maybe'", &["`once`", "maybe", "true, false"]),
        ("log-sync = 'often'", &["`log-sync`", "never, rotate, line or every:TIME"]),
        ("log-max-size = 10", &["`log-max-size`", "10MB"]),
        ("summary = '60'", &["`summary`", "60s"]),
        ("camera-format = '0x0'", &["`camera-format`", "0x0"]),
        ("package = ['a', 'b']", &["`package`", "a text, a number, true or false"]),
        ("board = 2026-01-01", &["`board`", "a text, a number"]),
        ("top = 1\ntop = 2", &["camera.toml line 2", "duplicate key"]),
        ("top = ", &["camera.toml line 1"]),
        ("package = 'a'\nslots = 'b'", &["`package`", "`slots`"]),
        ("threshold = 0.5\nleave-threshold = 0.6", &["leave threshold 0.6", "threshold 0.5"]),
        ("log-max-size = '2MB'\nlog-total = '1MB'", &["log-total"]),
    ];
    for (text, expected) in table {
        let error = resolved(text, &[]).err().unwrap_or_else(|| panic!("{text} is accepted"));
        for part in *expected {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        assert!(!error.contains("Usage") && !error.contains("--threshold"), "{error}");
    }
    // All of it at once, in the order of the file.
    let error = resolved("treshold = 1\ntop = 1\nthreads = 999\n", &[]).err().unwrap();
    assert_eq!(error.lines().count(), 2);
    assert!(error.lines().nth(1).unwrap().starts_with("camera.toml line 3: `threads`"), "{error}");
}

#[test]
fn the_command_line_overrides_the_file() {
    let file = "threshold = 0.5\ntop = 2\nonce = true\ntrusted-key = ['a.pub', 'b.pub']\nsummary = '5m'\n";
    let settings = resolved(file, &["--top", "7", "--once=false", "--trusted-key", "c.pub"]).unwrap();
    assert_eq!((settings.args.threshold, settings.args.top, settings.args.once), (Some(0.5), 7, false));
    assert_eq!(settings.args.trusted_key, [PathBuf::from("c.pub")]);
    assert_eq!(settings.args.summary.unwrap().as_secs(), 300);
    assert!(resolved(file, &["--once"]).unwrap().args.once);
}

#[test]
fn relative_paths_are_relative_to_the_files_folder() {
    let file = "package = 'm.edgepack'\nlog = '-'\nsource = 'photos'\ntrusted-key = ['/etc/k.pub', 'keys/k.pub']\n\
                display = 'png:s.png,size=320x240'\n";
    let settings = resolved(file, &[]).unwrap();
    let package = settings.args.package.clone().unwrap();
    assert!(package.is_absolute() && package.ends_with("m.edgepack"));
    let folder = package.parent().unwrap();
    assert_eq!(settings.args.source, Spec::Files(folder.join("photos")));
    assert_eq!(settings.args.log, Path::new("-"));
    assert_eq!(settings.args.trusted_key, [PathBuf::from("/etc/k.pub"), folder.join("keys/k.pub")]);
    let display = format!("png:{}/s.png,size=320x240", folder.display());
    assert_eq!(value(&settings, "display"), [display]);
    let links =
        resolved("link = ['unix:link', 'tcp:0.0.0.0:7070,key=link.key', 'serial:/dev/ttyS1,9600']", &[]).unwrap();
    let folder = value(&links, "link")[0].strip_prefix("unix:").unwrap().strip_suffix("/link").unwrap().to_string();
    assert!(Path::new(&folder).is_absolute());
    let key = format!("tcp:0.0.0.0:7070,key={folder}/link.key");
    assert_eq!(value(&links, "link")[1..], [key, "serial:/dev/ttyS1,9600".to_string()]);
    for source in ["v4l2:/dev/video2", "pattern", "pattern:8x9"] {
        let settings = resolved(&format!("source = '{source}'"), &[]).unwrap();
        assert_eq!(value(&settings, "source"), [source]);
    }
}

#[test]
fn what_is_printed_can_be_used_again() {
    let file = "package = 'm.edgepack'\nsmooth = 5\nmargin = 0.25\ndwell = '2s'\nboard = '7'\nrate = 0.5\n\
                trusted-key = ['k.pub']\nlink = ['unix:link']\nlink-control = true\nlog-budget = '5MB/h'\non-change = true\nlog-sync = 'every:30s'\n";
    let settings = resolved(file, &["--source", "photos"]).unwrap();
    let printed = print(&settings.values, false).unwrap();
    let again = resolved(&printed, &[]).unwrap();
    assert_eq!(again.values, settings.values, "{printed}");
    assert!(printed.contains("margin = 0.25\n") && printed.contains("# summary is not set\n"), "{printed}");
    let json: serde_json::Value = serde_json::from_str(&print(&settings.values, true).unwrap()).unwrap();
    assert_eq!((&json["smooth"], &json["summary"]), (&5.into(), &serde_json::Value::Null));
    assert_eq!(json["trusted-key"].as_array().unwrap().len(), 1);
}

#[test]
fn headings_tell_what_a_reload_has_to_open_anew() {
    let plain = resolved("rate = 5", &[]).unwrap();
    assert!(plain.differs(&resolved("rate = 6", &[]).unwrap(), crate::args::SOURCE));
    assert!(!plain.differs(&resolved("rate = 5\nthreshold = 0.1", &[]).unwrap(), crate::args::SOURCE));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_file_makes_it_panic_and_every_error_has_its_line(
        words in prop::collection::vec(prop::sample::select(vec![
            "top", "threshold", "log", "trusted-key", "x", " = ", "1", "-0x7f", "0b1", "1e999", "nan", "'a'", "\"\\u00e9\"", "[", "]", "{", "}",
            ",", "[[", ".", "\n", "\n", "#", "true", "2026-01-01", "\"\"\"", "\u{0}", "\u{feff}", "\u{1f4f7}",
        ]), 0..20),
    ) {
        let text = words.concat();
        if let Err(Wrong(errors)) = flags(&text, Path::new("camera.toml"), &Args::command()) {
            prop_assert!(!errors.is_empty());
            prop_assert!(errors.iter().all(|e| e.contains("camera.toml") && !e.contains('\n')), "{:?}", errors);
        }
    }
}
