//! Derives the private root's package sources from the machine's.

use std::fs;
use std::path::PathBuf;

/// The private root's source lists, in both of apt's formats.
#[derive(Default)]
pub struct Sources {
    /// Stanzas, for a file named `.sources`.
    pub deb822: String,
    /// Lines, for a file named `.list`.
    pub one_line: String,
}

/// Reads the machine's source lists and keeps Debian's own archives of this release, backports added.
///
/// Which processors the machine takes packages for is left out: the private root has its own.
pub fn of_machine(codename: &str, components: &str) -> Sources {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut sources = Sources::default();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => sources.deb822 += &deb822_sources(&text, codename, components),
            Some("list") => sources.one_line += &one_line_sources(&text, codename, components),
            _ => {}
        }
    }
    sources
}

/// The suites to ask for in place of `suites`; none where the source isn't Debian's main archive of this release.
fn wanted_suites<'a>(
    uris: &str,
    suites: impl Iterator<Item = &'a str>,
    mut components: impl Iterator<Item = &'a str>,
    codename: &str,
) -> Vec<String> {
    // Other vendors name their suites after Debian's releases too; backports must not be looked for at their servers.
    if !uris.contains("/debian") || !components.any(|component| component == "main") {
        return Vec::new();
    }
    let mut wanted = Vec::new();
    for suite in suites {
        if suite == codename {
            wanted.push(format!("{codename}-backports"));
        }
        if suite == codename || ["-updates", "-security"].iter().any(|end| suite == format!("{codename}{end}")) {
            wanted.push(suite.to_owned());
        }
    }
    wanted
}

/// Filters a file of stanzas. Fields we don't change (keys, trust, dates) are kept as they stand.
fn deb822_sources(text: &str, codename: &str, components: &str) -> String {
    let mut kept = String::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        // A field is its first line and the indented lines after it.
        let mut fields: Vec<(&str, String)> = Vec::new();
        for line in stanza {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push('\n');
                    value.push_str(line);
                }
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((name.trim(), value.trim().to_owned()));
            }
        }
        let field = |name: &str| {
            let found = fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value.as_str())
        };
        let disabled = ["no", "false", "0"].contains(&field("Enabled").to_ascii_lowercase().as_str());
        let binary = field("Types").split_whitespace().any(|kind| kind == "deb");
        let suites = field("Suites").split_whitespace();
        let wanted = wanted_suites(field("URIs"), suites, field("Components").split_whitespace(), codename);
        if disabled || !binary || wanted.is_empty() {
            continue;
        }
        kept += &format!("Types: deb\nSuites: {}\nComponents: {components}\n", wanted.join(" "));
        for (name, value) in &fields {
            let ours = ["types", "suites", "components", "enabled", "architectures"];
            if !ours.contains(&name.to_ascii_lowercase().as_str()) {
                kept += &format!("{name}: {value}\n");
            }
        }
        kept.push('\n');
    }
    kept
}

/// Filters a file of `deb [options] uri suite components` lines.
fn one_line_sources(text: &str, codename: &str, components: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb ").map(str::trim) else {
            continue;
        };
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => {
                let options: Vec<&str> = options.split_whitespace().filter(|o| !o.starts_with("arch")).collect();
                (if options.is_empty() { String::new() } else { format!("[{}] ", options.join(" ")) }, rest)
            }
            None => (String::new(), rest),
        };
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else {
            continue;
        };
        for suite in wanted_suites(uri, std::iter::once(suite), words, codename) {
            kept += &format!("deb {options}{uri} {suite} {components}\n");
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_keep_mirror_and_key_and_gain_backports() {
        let machine = "Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
                       Components: main contrib\nArchitectures: amd64\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                       Types: deb\nURIs: https://other.example/debian\nSuites: bookworm\nComponents: stable\n\n\
                       Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n";
        assert_eq!(
            deb822_sources(machine, "bookworm", "main"),
            "Types: deb\nSuites: bookworm-backports bookworm bookworm-updates\nComponents: main\n\
             URIs: http://mirror.example/debian\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n"
        );
    }

    #[test]
    fn a_key_inside_a_stanza_is_kept_whole() {
        let machine = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n\
                       Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n";
        let kept = deb822_sources(machine, "bookworm", "main");
        assert!(kept.ends_with("Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\n"), "{kept}");
    }

    #[test]
    fn lines_keep_their_options_and_foreign_vendors_are_left_out() {
        let machine = "deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian/ bookworm main contrib # note\n\
                       deb http://mirror.example/debian-security bookworm-security main\n\
                       deb-src http://mirror.example/debian bookworm main\n\
                       deb http://node.example/node_20.x bookworm main\n";
        assert_eq!(
            one_line_sources(machine, "bookworm", "main"),
            "deb [signed-by=/k.gpg] http://mirror.example/debian/ bookworm-backports main\n\
             deb [signed-by=/k.gpg] http://mirror.example/debian/ bookworm main\n\
             deb http://mirror.example/debian-security bookworm-security main\n"
        );
    }
}
