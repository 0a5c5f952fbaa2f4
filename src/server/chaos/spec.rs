//! `--chaos`: what is to go wrong, in words.
//!
//! ```text
//! SPEC = RULE[,RULE]…[,seed=NUMBER]
//! RULE = KIND[=ARGUMENT][:PERCENT%][@START[+LENGTH][/EVERY]]
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::command_line::span;
use crate::message::Hint;
use crate::model::printable;

/// What goes wrong on purpose: rules in their order, and what their dice begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    pub(super) rules: Vec<Rule>,
    pub(super) seed: Option<u64>,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) action: Action,
    pub(super) share: Share,
    /// None is always.
    pub(super) schedule: Option<Schedule>,
}

/// What is done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// It is refused with this status, and not carried out.
    Fail(u16),
    /// It is carried out after a time between these.
    Delay { least: Duration, most: Duration },
    /// It is not carried out, and gets no answer.
    Hang,
    /// It is carried out, and gets no answer: the connection is closed.
    Lose,
    /// The service that a heartbeat is for is taken out before it.
    Forget,
}

/// How many of all requests, in millionths: from one to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share(u32);

/// When a rule holds. Time begins with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) start: Duration,
    /// None is for good; for what is forgotten, everything at once.
    pub(super) length: Option<Duration>,
    /// From start to start.
    pub(super) every: Option<Duration>,
}

/// What is wrong with a [`Spec`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}`: {mistake}", printable(.part))]
pub struct SpecError {
    part: String,
    mistake: Mistake,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mistake {
    #[error("there is no `{}` to rehearse", printable(.0))]
    Kind(String),
    #[error("`{}` is no status of a failure", printable(.0))]
    Status(String),
    #[error("`{}` is no span of time", printable(.0))]
    Span(String),
    #[error("it does not say how long the delay is")]
    NoDelay,
    #[error("its delay ends before it begins")]
    Backwards,
    #[error("{0} takes no `=`")]
    NoArgument(&'static str),
    #[error("`{}` is no percentage", printable(.0))]
    Share(String),
    #[error("a rule that holds for good cannot begin again")]
    Endless,
    #[error("it begins again before it has ended")]
    Overlap,
    #[error("it begins again within a second")]
    Storm,
    #[error("`{}` is no seed", printable(.0))]
    Seed(String),
    #[error("there is a seed already")]
    SecondSeed,
    #[error("there is nothing to go wrong")]
    Nothing,
}

impl Hint for SpecError {
    fn hint(&self) -> Option<String> {
        let hint = match self.mistake {
            Mistake::Kind(_) | Mistake::Nothing => {
                "say fail, delay, hang, lose or forget: `fail=503:20%`, `delay=100ms..2s`, `hang@30s+10s`"
            }
            Mistake::Status(_) => "a status is from 400 to 599: `fail=503`",
            Mistake::Span(_) => "a span is like `30s`, `1m30s`, `200ms`; a bare number is seconds",
            Mistake::NoDelay | Mistake::Backwards => "a delay is like `delay=200ms` or `delay=100ms..2s`",
            Mistake::NoArgument(_) => "only fail and delay do: `fail=503`, `delay=200ms`",
            Mistake::Share(_) => "a percentage is from 0.0001 to 100: `fail:20%`",
            Mistake::Endless | Mistake::Overlap | Mistake::Storm => {
                "`@10s+5s/1m` is from 10 s after the start on, for 5 s, each minute"
            }
            Mistake::Seed(_) | Mistake::SecondSeed => "one whole number for all: `seed=42`",
        };
        Some(hint.to_owned())
    }
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut spec = Self { rules: Vec::new(), seed: None };
        for part in text.split(',').map(str::trim) {
            spec.add(part).map_err(|mistake| SpecError { part: part.to_owned(), mistake })?;
        }
        if spec.rules.is_empty() {
            return Err(SpecError { part: text.to_owned(), mistake: Mistake::Nothing });
        }
        Ok(spec)
    }
}

impl Spec {
    fn add(&mut self, part: &str) -> Result<(), Mistake> {
        match part.strip_prefix("seed=") {
            Some(_) if self.seed.is_some() => return Err(Mistake::SecondSeed),
            Some(seed) => self.seed = Some(seed.parse().map_err(|_| Mistake::Seed(seed.to_owned()))?),
            None => self.rules.push(part.parse()?),
        }
        Ok(())
    }
}

impl FromStr for Rule {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        let (text, schedule) = cut(text, '@');
        let (text, share) = cut(text, ':');
        let (kind, argument) = cut(text, '=');
        let rule = Self {
            action: Action::new(kind, argument)?,
            share: share.map_or(Ok(Share::ALL), str::parse)?,
            schedule: schedule.map(str::parse).transpose()?,
        };
        let is_endless = |schedule: &Schedule| schedule.length.is_none() && schedule.every.is_some();
        if rule.action != Action::Forget && rule.schedule.as_ref().is_some_and(is_endless) {
            return Err(Mistake::Endless);
        }
        Ok(rule)
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

impl Action {
    fn new(kind: &str, argument: Option<&str>) -> Result<Self, Mistake> {
        let action = match kind {
            "fail" => return argument.map_or(Ok(Self::Fail(503)), Self::fail),
            "delay" => return argument.map_or(Err(Mistake::NoDelay), Self::delay),
            "hang" => Self::Hang,
            "lose" => Self::Lose,
            "forget" => Self::Forget,
            _ => return Err(Mistake::Kind(kind.to_owned())),
        };
        if argument.is_some() { Err(Mistake::NoArgument(action.kind())) } else { Ok(action) }
    }

    fn fail(status: &str) -> Result<Self, Mistake> {
        let code = status.parse().ok().filter(|code| (400..600).contains(code));
        code.map(Self::Fail).ok_or_else(|| Mistake::Status(status.to_owned()))
    }

    fn delay(text: &str) -> Result<Self, Mistake> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let (least, most) = (time(least)?, time(most)?);
        if most.is_zero() {
            return Err(Mistake::NoDelay);
        }
        if least > most { Err(Mistake::Backwards) } else { Ok(Self::Delay { least, most }) }
    }

    /// Its name.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Fail(_) => "fail",
            Self::Delay { .. } => "delay",
            Self::Hang => "hang",
            Self::Lose => "lose",
            Self::Forget => "forget",
        }
    }
}

impl Share {
    const WHOLE: u32 = 1_000_000;
    pub(super) const ALL: Self = Self(Self::WHOLE);

    /// Whether this request is one of them.
    pub(super) fn has_one_more(self, dice: &mut fastrand::Rng) -> bool {
        dice.u32(0..Self::WHOLE) < self.0
    }
}

impl FromStr for Share {
    type Err = Mistake;

    /// With or without the sign, which a systemd unit has to double.
    fn from_str(text: &str) -> Result<Self, Mistake> {
        let percent = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
        let millionths = percent.map(|percent| (percent * 10_000.0).round());
        let millionths = millionths.filter(|millionths| (1.0..=f64::from(Self::WHOLE)).contains(millionths));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a whole number in range"
        )]
        millionths.map(|millionths| Self(millionths as u32)).ok_or_else(|| Mistake::Share(text.to_owned()))
    }
}

impl Schedule {
    /// Whether it is a moment, and no length of time.
    pub(super) fn is_moment(&self) -> bool {
        self.length.is_none()
    }

    /// How much longer it holds, so long after the start. None when it does not hold.
    pub(super) fn left(&self, elapsed: Duration) -> Option<Duration> {
        let since = elapsed.checked_sub(self.start)?;
        let since = self.every.map_or(since, |every| remainder(since, every));
        match self.length {
            None => Some(Duration::MAX),
            Some(length) => length.checked_sub(since).filter(|left| !left.is_zero()),
        }
    }
}

fn remainder(span: Duration, every: Duration) -> Duration {
    let nanos = span.as_nanos() % every.as_nanos().max(1);
    // Nothing has been under way for 584 years.
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl FromStr for Schedule {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        let (text, every) = cut(text, '/');
        let (start, length) = cut(text, '+');
        let schedule = Self {
            start: time(start)?,
            length: length.map(time).transpose()?,
            every: every.map(time).transpose()?,
        };
        if schedule.length.is_some_and(|length| length.is_zero()) {
            return Err(Mistake::Span(length.unwrap_or_default().to_owned()));
        }
        if schedule.every.is_some_and(|every| every < Duration::from_secs(1)) {
            return Err(Mistake::Storm);
        }
        if schedule.length.zip(schedule.every).is_some_and(|(length, every)| length >= every) {
            return Err(Mistake::Overlap);
        }
        Ok(schedule)
    }
}

fn time(text: &str) -> Result<Duration, Mistake> {
    span(text).map_err(|_| Mistake::Span(text.to_owned()))
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, rule) in self.rules.iter().enumerate() {
            write!(f, "{}{rule}", if number == 0 { "" } else { "," })?;
        }
        self.seed.map_or(Ok(()), |seed| write!(f, ",seed={seed}"))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.kind())?;
        match self.action {
            Action::Fail(status) => write!(f, "={status}")?,
            Action::Delay { least, most } if least == most => write!(f, "={}", Told(least))?,
            Action::Delay { least, most } => write!(f, "={}..{}", Told(least), Told(most))?,
            Action::Hang | Action::Lose | Action::Forget => {}
        }
        if self.share != Share::ALL {
            write!(f, ":{}%", f64::from(self.share.0) / 10_000.0)?;
        }
        let Some(Schedule { start, length, every }) = self.schedule else { return Ok(()) };
        write!(f, "@{}", Told(start))?;
        length.map_or(Ok(()), |length| write!(f, "+{}", Told(length)))?;
        every.map_or(Ok(()), |every| write!(f, "/{}", Told(every)))
    }
}

/// A span in one word.
struct Told(Duration);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = humantime::format_duration(self.0).to_string();
        text.split(' ').try_for_each(|word| f.write_str(word))
    }
}

#[cfg(test)]
mod tests;
