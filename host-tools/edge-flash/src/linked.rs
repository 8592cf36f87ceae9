//! Cameras that run and are asked over their link.

use crate::{out, progress};
use anyhow::{Context, Result, bail};
use edge_link::{Address, Client, Power, Request, Response, WholeLines};
use std::time::Duration;

/// How long a camera is waited for that is starting.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to give an answer that needs no work.
const SOON: Duration = Duration::from_secs(60);
/// Bytes of an update in one message, and over a serial line, where one that is lost is soon sent again.
const STEPS: [usize; 2] = [256 << 10, 16 << 10];

/// Connects to the camera at `address`.
fn connect(address: &Address) -> Result<Client> {
    Client::connect(address, PATIENCE).with_context(|| format!("the camera at {address}"))
}

/// Sends a package or a system; what the camera says of it. A system runs from the next start on, which is at once where
/// that is asked for.
pub fn update(address: &Address, bytes: &[u8], restart: bool) -> Result<String> {
    let mut client = connect(address)?;
    if client.hello().is_some_and(|hello| !hello.control) {
        bail!(
            "the camera at {address} answers questions only; to be updated it needs `link-control` in its configuration"
        );
    }
    let bar = progress::bytes(bytes.len() as u64, "sending");
    let step = STEPS[usize::from(matches!(address, Address::Serial { .. }))];
    let said = client.update(bytes, step, &mut |sent| bar.inc(sent));
    bar.finish_and_clear();
    let mut said = said?;
    if restart {
        match client.ask(&Request::Power(Power::Reboot), SOON)? {
            Response::Done(text) => said += &format!("; {text}"),
            _ => bail!("the camera at {address} does not say whether it starts anew"),
        }
    }
    Ok(said)
}

/// Prints the log.
pub fn log(address: &Address) -> Result<()> {
    let mut client = connect(address)?;
    let ended = client.log(&mut WholeLines::new(std::io::stdout().lock()));
    match ended {
        // Whoever reads it has had enough.
        Err(edge_link::LinkError::Io(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(e.into()),
        ended => ended.with_context(|| format!("the camera at {address}")),
    }
}

/// Refuses to be asked for the boot log, which the link does not have.
pub fn no_boot_log(address: &Address) -> Result<()> {
    bail!("{address}: the link of a camera leads to what it classified; the boot log is on its card, or at USER@HOST")
}

/// The note on a key file that was made.
pub fn told(path: &std::path::Path) -> Result<()> {
    out::line(format_args!(
        "{0}: the key of a link over TCP; both ends need it and nobody else may have it: --link-key {0} for an image",
        path.display()
    ))
}
