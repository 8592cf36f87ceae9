//! What the camera's configuration asks of this process: to obey the camera program, and lines for it.

use std::path::{Component, Path, PathBuf};

/// What it asks for; nothing, as a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Orders of the camera program are taken: its link to a host may change things.
    pub control: bool,
    /// Serial lines that its link goes over, relative to `/dev`.
    pub lines: Vec<PathBuf>,
}

impl Wishes {
    /// Reads the configuration. The camera program tells what is wrong with it; nothing is asked for then.
    pub fn read(path: &Path) -> Wishes {
        std::fs::read_to_string(path).map(|text| Wishes::parse(&text)).unwrap_or_default()
    }

    fn parse(text: &str) -> Wishes {
        let Ok(table) = text.parse::<toml::Table>() else { return Wishes::default() };
        let links: Vec<&str> = match table.get("link") {
            Some(toml::Value::String(link)) => vec![link],
            Some(toml::Value::Array(links)) => links.iter().filter_map(toml::Value::as_str).collect(),
            _ => vec![],
        };
        let control = match table.get("link-control") {
            Some(toml::Value::Boolean(control)) => *control,
            Some(toml::Value::String(control)) => control == "true",
            _ => false,
        };
        Wishes { control: control && !links.is_empty(), lines: links.into_iter().filter_map(line).collect() }
    }
}

/// `serial:/dev/ttyS1,115200` → `ttyS1`.
fn line(link: &str) -> Option<PathBuf> {
    let path = link.strip_prefix("serial:")?;
    let path = Path::new(path.split_once(',').map_or(path, |(path, _)| path)).strip_prefix("/dev").ok()?;
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && path != Path::new("")).then(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_configuration_leads_out_of_dev(text in "(link|link-control| = |\\[|\\]|\"|true|,|serial:|/dev/|\\.\\./|ttyS1|\n|\\PC)*") {
            for line in Wishes::parse(&text).lines {
                prop_assert!(line.components().all(|part| matches!(part, Component::Normal(_))), "{line:?}");
            }
        }
    }

    #[test]
    fn what_is_asked_for() {
        let of = |text: &str| Wishes::parse(text);
        for nothing in ["", "rate = 2", "link-control = true", "link = [", "link = 3\nlink-control = true", "link = []"]
        {
            assert_eq!(of(nothing), Wishes::default(), "{nothing}");
        }
        let both = "link = [\"tcp:0.0.0.0:7070,key=link.key\", \"serial:/dev/ttyS1,115200\"]\nlink-control = true\n";
        assert_eq!(of(both), Wishes { control: true, lines: vec!["ttyS1".into()] });
        let port = "link = \"serial:/dev/virtio-ports/edge.link\"\n";
        assert_eq!(of(port), Wishes { control: false, lines: vec!["virtio-ports/edge.link".into()] });
        for odd in
            ["serial:/dev/../etc/passwd", "serial:/etc/passwd", "serial:ttyS1", "serial:/dev", "serial:", "unix:/dev/x"]
        {
            assert_eq!(of(&format!("link = \"{odd}\"")).lines, Vec::<PathBuf>::new(), "{odd}");
        }
    }
}
