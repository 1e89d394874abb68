//! [`Core`]: who runs, who waits, and what is submitted next. One turn is a decode step of all that run, then a chunk of a
//! newcomer's prompt; what they choose is read back while the next turn is under way.

mod turn;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::task::{Context as TaskContext, Poll};

use super::options::{Counts, SchedulerOptions};
use super::pool::Pool;
use super::request::{Arrival, Output, Request, Seated};
use crate::error::{Error, Result};
use crate::format::source::BoxFuture;
use crate::generate::slots::{Layout, SlotState, Slots, full, states};
use crate::generate::stream::shifted;
use crate::generate::{ContextFull, Finish, GenerateOptions, Model};
use crate::kernels::cache::PAGE;

/// States on their way back.
struct Read {
    bytes: BoxFuture<'static, Result<Vec<u8>>>,
    /// Slot, request and stay of each token among them.
    tokens: Vec<(usize, u64, u64)>,
    ends_turn: bool,
}

/// Requests and the state of the GPU.
pub(super) struct Core {
    slots: Slots,
    options: SchedulerOptions,
    sizes: Vec<usize>,
    pool: Pool,
    /// In the order of their numbers.
    waiting: VecDeque<Request>,
    seated: BTreeMap<u64, Seated>,
    /// The request in each slot.
    seats: Vec<Option<u64>>,
    /// The one whose prompt is being computed. One at a time, so that the next finds what it shares with this one.
    newcomer: Option<u64>,
    flight: VecDeque<Read>,
    outputs: HashMap<u64, Output>,
    counts: Counts,
    stays: u64,
    /// Whether a stream has got something since the last time that somebody asked.
    news: bool,
}

impl Core {
    pub fn new(model: &Model, options: SchedulerOptions) -> Result<Self> {
        options.check()?;
        let longest = if options.context_length == 0 { model.config().context_length } else { options.context_length };
        let each = longest.div_ceil(PAGE).max(1);
        let pages = if options.pages == 0 { options.slots * each } else { options.pages };
        // A request that is alone can then always go on, so that giving up pages always helps.
        if pages < each {
            return Err(Error::shape(format!(
                "scheduler: {pages} pages, expected at least the {each} of one sequence of {longest} positions"
            )));
        }
        let layout = Layout {
            slots: options.slots,
            context_length: longest,
            pages: Some(pages),
            chunk: options.chunk,
            deterministic: options.deterministic,
            plain: options.plain,
        };
        Ok(Self {
            slots: Slots::new(model, &layout)?,
            sizes: options.sizes(),
            seats: vec![None; options.slots],
            options,
            pool: Pool::new(pages),
            waiting: VecDeque::new(),
            seated: BTreeMap::new(),
            newcomer: None,
            flight: VecDeque::new(),
            outputs: HashMap::new(),
            counts: Counts::default(),
            stays: 0,
            news: false,
        })
    }

    pub fn model(&self) -> &Model {
        self.slots.model()
    }

    pub fn options(&self) -> &SchedulerOptions {
        &self.options
    }

    pub fn context_length(&self) -> usize {
        self.slots.context_length()
    }

    pub fn counts(&self) -> Counts {
        Counts {
            running: self.seated.len(),
            waiting: self.waiting.len(),
            pages_used: self.pool.len() - self.pool.available(),
            pages_idle: self.pool.idle(),
            ..self.counts
        }
    }

    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.seated.is_empty()
    }

    /// Puts a request behind those that wait.
    pub fn add(&mut self, id: u64, prompt: &[u32], options: GenerateOptions) -> Result<()> {
        options.sampling.to_slot()?;
        self.slots.check_tokens(prompt)?;
        if prompt.is_empty() {
            return Err(Error::shape("prompt: found no token, expected at least one"));
        }
        if prompt.len() > self.context_length() {
            return Err(full(prompt.len(), self.context_length()));
        }
        let (tokens, len) = (prompt.to_vec(), prompt.len());
        self.waiting.push_back(Request { id, options, tokens, prompt: len, before: 0, seen: len });
        self.outputs.insert(id, Output::default());
        Ok(())
    }

    /// Forgets a request and whatever of it has not been taken.
    pub fn cancel(&mut self, id: u64) {
        self.outputs.remove(&id);
        self.waiting.retain(|request| request.id != id);
        self.unseat(id);
    }

    /// What there is for a stream: a token, the end, or nothing yet.
    pub fn take(&mut self, id: u64) -> Poll<Option<Result<u32>>> {
        let Some(output) = self.outputs.get_mut(&id) else { return Poll::Ready(None) };
        match output.items.pop_front() {
            Some(item) => Poll::Ready(Some(item)),
            None if output.ended.is_some() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// Why a request ended, once it has.
    pub fn finish_of(&self, id: u64) -> Option<Finish> {
        self.outputs.get(&id)?.ended.flatten()
    }

    /// Takes what has come back and submits what can be submitted. Whether others should look what there is for them, or call
    /// again, as `task` hears of nothing yet.
    pub fn drive(&mut self, task: &mut TaskContext<'_>) -> bool {
        let again = self.try_drive(task).unwrap_or_else(|error| {
            self.fail(&error);
            true
        });
        std::mem::take(&mut self.news) || again
    }

    fn try_drive(&mut self, task: &mut TaskContext<'_>) -> Result<bool> {
        while self.receive(task)? {}
        while self.flight.iter().filter(|read| read.ends_turn).count() < self.options.ahead {
            if !self.turn()? {
                break;
            }
        }
        if self.flight.is_empty() && !self.waiting.is_empty() {
            // Nothing runs and yet the first does not fit: it never will.
            let pages = self.pool.available();
            return Err(Error::out_of_memory(format!("scheduler: a request does not fit in {pages} free pages")));
        }
        // So that the task hears of the oldest one.
        self.receive(task)
    }

    /// Takes the oldest read-back, if it is there.
    fn receive(&mut self, task: &mut TaskContext<'_>) -> Result<bool> {
        let Some(read) = self.flight.front_mut() else { return Ok(false) };
        let Poll::Ready(bytes) = read.bytes.as_mut().poll(task) else { return Ok(false) };
        let states = states(&bytes?);
        let tokens = self.flight.pop_front().map(|read| read.tokens).unwrap_or_default();
        for (slot, id, stay) in tokens {
            self.arrive(id, stay, states.get(slot))?;
        }
        Ok(true)
    }

    fn arrive(&mut self, id: u64, stay: u64, state: Option<&SlotState>) -> Result<()> {
        // It may have ended, or lost its place, since this step was submitted.
        let Some(seated) = self.seated.get_mut(&id).filter(|seated| seated.stay == stay) else { return Ok(()) };
        let &[token, ..] = state.ok_or_else(|| Error::shape("states: found fewer than slots"))?;
        seated.coming -= 1;
        let arrival = match seated.request.arrive(token) {
            Ok(arrival) => arrival,
            Err(error) => {
                self.end(id, None, Some(error));
                return Ok(());
            }
        };
        if matches!(arrival, Arrival::New | Arrival::Last) {
            self.counts.delivered += 1;
            if let Some(output) = self.outputs.get_mut(&id) {
                output.items.push_back(Ok(token));
                self.news = true;
            }
        }
        match arrival {
            Arrival::Stop => self.end(id, Some(Finish::Stop), None),
            Arrival::Last => self.end(id, Some(Finish::Length), None),
            Arrival::New | Arrival::Again => {
                self.publish_written(id)?;
                self.when_full(id);
            }
        }
        Ok(())
    }

    /// Lets others find the pages that a sequence has filled with what it wrote.
    fn publish_written(&mut self, id: u64) -> Result<()> {
        let Some(seated) = self.seated.get_mut(&id) else { return Ok(()) };
        // Keys of decode steps are not those of prefill to the bit.
        if self.options.deterministic {
            return Ok(());
        }
        // All but the token that came last have been fed.
        let fed = seated.request.seen - 1;
        publish(&mut self.pool, &self.slots, seated, fed)
    }

    /// A sequence that has every position's token ends, or goes on with less of what came before.
    fn when_full(&mut self, id: u64) {
        let room = self.context_length();
        let Some(seated) = self.seated.get(&id) else { return };
        if seated.coming > 0 || seated.active || seated.fed < room {
            return;
        }
        let keep = match seated.request.options.when_full {
            ContextFull::Error => None,
            ContextFull::Shift { keep } => Some(keep),
        };
        let Some(tokens) = keep.and_then(|keep| shifted(&seated.request.tokens, keep, room)) else {
            return self.end(id, None, Some(full(room + 1, room)));
        };
        if let Some(mut request) = self.unseat(id) {
            request.before += request.seen - request.prompt;
            (request.prompt, request.seen) = (tokens.len(), tokens.len());
            request.tokens = tokens;
            self.wait_again(request);
        }
    }

    /// Puts a request among those that wait, where its number belongs.
    fn wait_again(&mut self, request: Request) {
        let at = self.waiting.iter().position(|other| other.id > request.id).unwrap_or(self.waiting.len());
        self.waiting.insert(at, request);
    }

    fn end(&mut self, id: u64, finish: Option<Finish>, error: Option<Error>) {
        self.unseat(id);
        if let Some(output) = self.outputs.get_mut(&id) {
            output.items.extend(error.map(Err));
            output.ended = Some(finish);
            self.news = true;
        }
    }

    /// Frees a request's slot and pages. Steps that are under way still write there, before whatever is submitted next.
    fn unseat(&mut self, id: u64) -> Option<Request> {
        let seated = self.seated.remove(&id)?;
        self.seats[seated.slot] = None;
        self.pool.release(seated.table);
        if self.newcomer == Some(id) {
            self.newcomer = None;
        }
        if seated.active {
            // The state lies in a buffer, or the slot could not have become active.
            let _ = self.slots.deactivate(seated.slot);
        }
        Some(seated.request)
    }

    /// Ends all requests with an error, and trusts nothing that is in the cache.
    fn fail(&mut self, error: &Error) {
        self.flight.clear();
        let mut ids: Vec<u64> = self.seated.keys().copied().collect();
        ids.extend(self.waiting.drain(..).map(|request| request.id));
        for id in ids {
            self.end(id, None, Some(error.clone()));
        }
        self.pool.forget();
    }
}

/// Publishes a sequence's pages that its first `fed` tokens fill.
fn publish(pool: &mut Pool, slots: &Slots, seated: &mut Seated, fed: usize) -> Result<()> {
    let full = (fed / PAGE).min(seated.table.pages().len());
    while seated.table.known() < full {
        let index = seated.table.known();
        let tokens = &seated.request.tokens[index * PAGE..][..PAGE];
        if let Some(page) = pool.publish(&mut seated.table, tokens) {
            slots.write_pages(seated.slot, index, &[page])?;
        }
    }
    Ok(())
}
