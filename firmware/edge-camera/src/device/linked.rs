//! What a host asked for and only the loop can do: one thing between two frames.

use super::Device;
use crate::capture::Frame;
use crate::link::{self, Ask, Link, Task};
use crate::package::Missed;
use crate::slots;
use crate::stop::Failure;
use edge_device::golden;
use edge_link::{Classified, GoldenResult, PictureData, Reply, Response};
use edge_system::slot::Slots;
use edge_system::state::Reason;
use edge_vision::Picture;
use std::ffi::OsString;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// How long an installation is waited for that changes the slots.
const PATIENCE: Duration = Duration::from_secs(10);

/// A replay of the golden samples, one between two frames.
pub(super) struct Goldens {
    results: Vec<GoldenResult>,
    reply: Sender<Reply>,
}

impl Device {
    /// Begins to answer hosts, where the configuration says so. `words` are what this program was called with.
    pub fn listen(&mut self, words: &[OsString]) {
        let source = self.source.describe();
        self.link = Link::open(&self.settings, self.started, words, &self.model, source);
    }

    /// A frame of the source.
    pub fn take(&mut self, mut frame: Frame) -> Result<(), Failure> {
        let Some(link) = &mut self.link else { return self.frame(&frame).map(drop) };
        if !link.admit(&mut frame) {
            return Ok(());
        }
        // What came of it is logged.
        let _ = self.frame(&frame)?;
        self.keep(frame);
        Ok(())
    }

    fn keep(&self, frame: Frame) {
        if let Some(link) = &self.link {
            link.keep(frame);
        }
    }

    /// Does one thing that a host asked for, if there is one.
    pub fn answer(&mut self, words: &[OsString]) -> Result<(), Failure> {
        if self.goldens.is_some() {
            self.next_golden();
            return Ok(());
        }
        let Some(Task { what, reply }) = self.link.as_ref().and_then(Link::task) else { return Ok(()) };
        let answer = match what {
            Ask::Classify(picture) => self.beside(picture).map(Response::Classified),
            Ask::Inject(picture) => self.put_in(picture)?.map(Response::Classified),
            Ask::Goldens => {
                self.goldens = Some(Goldens { results: vec![], reply });
                return Ok(());
            }
            Ask::SwitchSlot => self.switch_slot(words)?.map(Response::Done),
            Ask::Reload => self.take_installed(words)?.map(Response::Done),
        };
        // Whoever asked may be gone.
        let _ = reply.send(answer);
        Ok(())
    }

    /// Classifies a picture; what is seen otherwise takes no note.
    fn beside(&mut self, picture: PictureData) -> Result<Classified, String> {
        let frame = link::frame(picture, 0);
        let mount = self.settings.args.mount();
        // Their own, so that no large one is kept.
        let blank = Picture::blank(1, 1).map_err(|e| e.to_string())?;
        let mut pictures = [blank.clone(), blank];
        let seen = self.model.classify(&frame, &mount, &mut pictures).map_err(|missed| match missed {
            Missed::Frame(why) | Missed::Network(why) => why,
        })?;
        Ok(self.model.detail(&seen))
    }

    /// Takes a picture for the next frame of the source.
    fn put_in(&mut self, picture: PictureData) -> Result<Result<Classified, String>, Failure> {
        let Some(link) = &mut self.link else { return Ok(Err("there is no link".into())) };
        let frame = link.put_in(picture);
        let seen = self.frame(&frame)?;
        self.keep(frame);
        // It may have been larger than those of the source ever are.
        let blank = Picture::blank(1, 1).map_err(anyhow::Error::from)?;
        self.pictures = [blank.clone(), blank];
        Ok(seen.map(|event| {
            let (model, decided) = (&self.model, event.class);
            let of = event.top.iter().find(|score| Some(score.index) == decided).or(event.top.first());
            Classified {
                tensor: golden::tensor_digest(model.classifier.tensor()),
                logits: model.classifier.logits().to_vec(),
                class: decided.and_then(|class| u32::try_from(class).ok()),
                score: of.map_or(0.0, |score| score.score),
                decision: event.decision,
            }
        }))
    }

    /// Replays the next golden sample, and answers when there are no more.
    fn next_golden(&mut self) {
        let Some(mut goldens) = self.goldens.take() else { return };
        let Some(package) = &self.model.package else {
            let _ = goldens.reply.send(Err("the package is not kept".into()));
            return;
        };
        match golden::replay_sample(&mut self.model.classifier, package, goldens.results.len()) {
            Some(outcome) => {
                goldens.results.push(GoldenResult {
                    name: outcome.name,
                    max_delta: outcome.max_delta,
                    allowed: outcome.allowed,
                    failure: outcome.failure.map(|failure| failure.to_string()),
                });
                self.goldens = Some(goldens);
            }
            None => drop(goldens.reply.send(Ok(Response::Goldens(goldens.results)))),
        }
    }

    /// The model is another one now: what was begun with the one before it makes no sense any more.
    pub(super) fn changed(&mut self) {
        if let Some(goldens) = self.goldens.take() {
            let _ = goldens.reply.send(Err("another package runs now; ask again".into()));
        }
        if let Some(link) = &self.link {
            link.about(&self.settings, &self.model, self.source.describe());
        }
    }

    /// Takes what was installed.
    fn take_installed(&mut self, words: &[OsString]) -> Result<Result<String, String>, Failure> {
        let reloaded = self.reload(words)?;
        let choice = self.settings.slots().map(|folder| Slots::new(&folder).choice());
        let chosen = choice.map(|choice| choice.trial.map_or(choice.active, |trial| trial.slot));
        Ok(match reloaded {
            Ok(_) if self.model.slot == chosen => Ok("it runs now".into()),
            Ok(about) => Err(format!("{about} runs; `edge-flash log` tells why")),
            Err(why) => Err(why),
        })
    }

    /// Runs the package of the other slot: of a trial, the one before it.
    fn switch_slot(&mut self, words: &[OsString]) -> Result<Result<String, String>, Failure> {
        let Some(folder) = self.settings.slots() else {
            return Ok(Err("this camera runs one package and has no other slot; `slots` of its configuration names a folder for two".into()));
        };
        let slots = Slots::new(&folder);
        let change = |act: &dyn Fn(&Slots) -> std::io::Result<()>| {
            let _lock = slots::hold(&folder, PATIENCE, &mut || ())?;
            act(&slots)
        };
        let trial = slots.choice().trial.is_some();
        let done = change(&|slots| match trial {
            true => slots.give_up(Reason::Behaviour),
            false => slots.switch().map(drop),
        });
        if let Err(e) = done {
            return Ok(Err(format!("the slots in {} cannot be switched: {e}", folder.display())));
        }
        let wanted = slots.choice().active;
        let reloaded = self.reload(words)?;
        if self.model.slot == Some(wanted) {
            return Ok(reloaded);
        }
        // It is refused: what ran goes on, now and at the next start.
        let back = change(&|slots| if trial { Ok(()) } else { slots.switch().map(drop) });
        let unwritten = slots::unwritten(back);
        let why = match reloaded {
            Err(why) => why,
            Ok(_) => format!("the package in slot {wanted} is refused; `edge-flash log` tells why"),
        };
        Ok(Err(format!("{why}{unwritten}")))
    }
}
