//! `camera.toml` of an image: checked, and completed with what a card needs.

use anyhow::{Context, Result, bail};
use edge_link::Address;
use std::path::Path;
use std::process::Command;

/// Keys that an image says itself, and what to use instead.
const OWN: [(&str, &str); 5] = [
    ("package", "an image runs what --package gives it"),
    ("slots", "an image has its packages on its data partition"),
    ("log", "an image logs to its data partition; `edge-flash log` reads it"),
    ("trusted-key", "--trusted-key of `edge-flash image` says whose packages are accepted"),
    ("board", "--board of `edge-flash image` says which board it is"),
];
/// Name of the key of a link on the boot partition.
pub const LINK_KEY: &str = "link.key";
/// Keys of which one must say how large the log may grow.
const ROTATION: [&str; 2] = ["log-max-size", "log-total"];

const HEAD: &str = "\
# Settings of the camera. Any editor may change them; they count from the next start on. What cannot be read is told on
# the console and in the boot log, and the camera then runs with what it has without this file.
# Keys are the flags of `edge-camera --help`, for example:
#   source = \"v4l2:/dev/video0\"
#   camera-format = \"1280x720@30\"
#   rotate = 180
#   threshold = 0.6
";

/// The text of `camera.toml`, from a file or without one. `data` is the size of a fresh data partition in bytes.
pub fn text(file: Option<&Path>, data: u64) -> Result<String> {
    let mut text = match file {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => HEAD.into(),
    };
    let name = file.map_or("camera.toml".into(), |path| path.display().to_string());
    let table: toml::Table = toml::from_str(&text).with_context(|| format!("{name} is no TOML"))?;
    for (key, why) in OWN {
        if table.contains_key(key) {
            bail!("{name}: take `{key}` out of it: {why}");
        }
    }
    if let Some((key, _)) = table.iter().find(|(_, value)| value.is_table()) {
        bail!("{name}: table `[{key}]`: keys stand by themselves, without tables");
    }
    if !ROTATION.iter().any(|key| table.contains_key(*key)) {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        // A tenth of the partition before it grows leaves it to the packages.
        let total = (data / 10 / 1_000_000).max(1);
        text += &format!("# The log is begun anew before it fills the card.\nlog-total = \"{total}MB\"\n");
    }
    read_by_runtime(&text, &name)?;
    Ok(text)
}

/// Checks that an image has the key of its link where `config` wants one, and only there.
pub fn check_key(config: &str, given: bool) -> Result<()> {
    let table: toml::Table = toml::from_str(config).context("camera.toml is no TOML")?;
    let links = match table.get("link") {
        Some(toml::Value::Array(links)) => links.as_slice(),
        Some(link) => std::slice::from_ref(link),
        None => &[],
    };
    let mut wanted = false;
    for link in links.iter().filter_map(toml::Value::as_str) {
        // What is no address is the runtime's to tell.
        let Ok(Address::Tcp { key, .. }) = link.parse() else { continue };
        if key != Path::new(LINK_KEY) {
            bail!(
                "camera.toml: {link:?}: the key of an image's link lies beside its camera.toml; write key={LINK_KEY}"
            );
        }
        wanted = true;
    }
    match (wanted, given) {
        (true, false) => bail!(
            "camera.toml has a link over TCP, which needs a key: make one with `edge-flash link-key FILE` and give it with --link-key"
        ),
        (false, true) => bail!(
            "--link-key is for a link over TCP, such as link = \"tcp:0.0.0.0:7070,key={LINK_KEY}\" in the file of --config"
        ),
        _ => Ok(()),
    }
}

/// Has the runtime read the file, where it lies beside this program: there is one reader, and it tells all that is wrong
/// at once. Without it the device tells.
pub fn read_by_runtime(text: &str, name: &str) -> Result<()> {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name("edge-camera"));
    let Some(program) = beside.filter(|program| program.is_file()) else { return Ok(()) };
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let file = folder.path().join("camera.toml");
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let output = Command::new(&program).arg("--config").arg(&file).arg("--check").output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}", said.trim().trim_start_matches("edge-camera: "));
    }
    Ok(())
}

/// Refuses what no network takes for a host's name.
pub fn hostname(name: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=63).contains(&name.len()) && name.chars().all(good) && !name.starts_with('-') && !name.ends_with('-') {
        return Ok(name.into());
    }
    Err("a host's name has 1 to 63 of a-z, 0-9 and -, and no - at either end".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        super::text(Some(file.path()), 700_000_000)
    }

    #[test]
    fn the_log_is_bounded_unless_the_file_says_how() {
        assert_eq!(of("rate = 2").unwrap().lines().last(), Some("log-total = \"70MB\""));
        assert_eq!(of("rate = 2\nlog-max-size = \"1MB\"\n").unwrap(), "rate = 2\nlog-max-size = \"1MB\"\n");
        let without = text(None, 1_000).unwrap();
        assert_eq!(toml::from_str::<toml::Table>(&without).unwrap()["log-total"].as_str(), Some("1MB"));
    }

    #[test]
    fn what_an_image_says_itself_is_refused() {
        for (key, _) in OWN {
            assert!(of(&format!("{key} = \"x\"")).unwrap_err().to_string().contains(key));
        }
        assert!(of("[log]\nx = 1").is_err() && of("[source]\nx = 1").unwrap_err().to_string().contains("[source]"));
        assert!(format!("{:#}", of("rate = ").unwrap_err()).contains("no TOML"));
    }

    #[test]
    fn a_link_over_tcp_and_its_key_go_together() {
        let tcp = "link = [\"serial:/dev/ttyS1\", \"tcp:0.0.0.0:7070,key=link.key\"]";
        check_key(tcp, true).unwrap();
        for plain in ["", "link = \"serial:/dev/ttyS1\"", "link = []", "link = 7"] {
            check_key(plain, false).unwrap();
            assert!(check_key(plain, true).unwrap_err().to_string().contains("--link-key is for"), "{plain}");
        }
        assert!(check_key(tcp, false).unwrap_err().to_string().contains("edge-flash link-key"));
        let elsewhere = check_key("link = \"tcp:0.0.0.0:7070,key=/etc/x\"", true).unwrap_err().to_string();
        assert!(elsewhere.contains("key=link.key"), "{elsewhere}");
    }

    #[test]
    fn hosts_have_plain_names() {
        assert!(hostname("camera-7").is_ok());
        for odd in ["", "-a", "a-", "a b", "Ä", "a.b", "A", &"a".repeat(64)] {
            assert!(hostname(odd).is_err(), "{odd}");
        }
    }
}
