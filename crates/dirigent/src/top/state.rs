//! What is shown, and what keys make of it.

use super::look::{CONNECTIONS, Want};
use super::rows::{self, Kind};
use super::table::{Column, Row, Sort};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use dirigent_api::{ConnectionsOf, StatsOf};
use dirigent_config::ServiceKey;
use std::time::Duration;

/// The intervals that keys choose from, milliseconds.
const INTERVALS: [u64; 9] = [100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];

/// Where one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// All services.
    Services,
    /// The servers of one.
    Servers {
        /// Its name.
        service: String,
    },
    /// The connections of a server.
    Connections {
        /// Its service.
        service: String,
        /// Its address.
        server: String,
    },
    /// What was lost, and why.
    Drops,
    /// What happened.
    Events,
}

impl Place {
    /// What it is called.
    fn name(&self) -> &str {
        match self {
            Self::Services => "services",
            Self::Servers { service } => service,
            Self::Connections { server, .. } => server,
            Self::Drops => "drops",
            Self::Events => "events",
        }
    }
    /// What kind of table is there.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Services => Kind::Services,
            Self::Servers { .. } => Kind::Servers,
            Self::Connections { .. } => Kind::Connections,
            Self::Drops => Kind::Drops,
            Self::Events => Kind::Events,
        }
    }
}

/// A place with what is seen of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// Which.
    pub place: Place,
    /// Only rows with this text.
    pub filter: String,
    /// The row under the cursor.
    pub cursor: usize,
    /// Which row that is, once the cursor was moved: it is followed wherever it goes.
    followed: Option<String>,
    /// The first row on the screen.
    pub first: usize,
}

impl Level {
    fn at(place: Place) -> Self {
        Self { place, filter: String::new(), cursor: 0, followed: None, first: 0 }
    }
    /// Has the cursor on a row that there is, and the row on the screen, which has room for `page` of them.
    fn settle(&mut self, rows: &[&Row], page: usize) {
        let followed = self.followed.as_ref().and_then(|id| rows.iter().position(|row| row.id == *id));
        self.cursor = followed.unwrap_or(self.cursor).min(rows.len().saturating_sub(1));
        // Neither beyond the cursor nor so far down that there is room below.
        self.first = self.first.min(self.cursor).min(rows.len().saturating_sub(page));
        self.first = self.first.max((self.cursor + 1).saturating_sub(page));
    }
    fn go(&mut self, rows: &[&Row], to: usize) {
        self.cursor = to.min(rows.len().saturating_sub(1));
        self.followed = rows.get(self.cursor).map(|row| row.id.clone());
    }
}

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Only what is shown is another.
    Draw,
    /// The daemon has to be asked, now.
    Ask,
    /// What it was asked for is not wanted any more.
    Hold,
    /// The whole screen is drawn anew.
    Clear,
    /// To the shell, for a while.
    Suspend,
    /// It is over.
    Quit,
}

/// All that is not the director's.
#[derive(Clone, Debug)]
pub struct State {
    /// Where one came by; where one is, is last.
    levels: Vec<Level>,
    sorts: [Sort; Kind::ALL.len()],
    /// The filter is being typed.
    pub typing: bool,
    /// The keys are explained.
    pub help: bool,
    /// Nothing is asked by itself.
    pub paused: bool,
    /// Between two looks.
    pub interval: Duration,
    /// What became of the last place: it is gone.
    pub note: Option<String>,
}

impl State {
    /// At the list of services, or at the one of this name.
    pub fn new(interval: Duration, service: Option<String>) -> Self {
        let mut levels = vec![Level::at(Place::Services)];
        levels.extend(service.map(|service| Level::at(Place::Servers { service })));
        let (typing, help, paused, note) = (false, false, false, None);
        Self { levels, sorts: Kind::ALL.map(Kind::sort), typing, help, paused, interval, note }
    }
    /// Where one is.
    #[expect(clippy::expect_used, reason = "the list of services is never left")]
    pub fn level(&self) -> &Level {
        self.levels.last().expect("one level")
    }
    #[expect(clippy::expect_used, reason = "the list of services is never left")]
    fn level_mut(&mut self) -> &mut Level {
        self.levels.last_mut().expect("one level")
    }
    /// The names of all places on the way here.
    pub fn way(&self) -> Vec<&str> {
        self.levels.iter().map(|level| level.place.name()).collect()
    }
    /// The order of rows here.
    pub fn sort(&self) -> Sort {
        let kind = self.level().place.kind();
        self.sorts.get(kind as usize).copied().unwrap_or_else(|| kind.sort())
    }
    fn set_sort(&mut self, sort: Sort) {
        let kind = self.level().place.kind();
        self.sorts.get_mut(kind as usize).into_iter().for_each(|place| *place = sort);
    }
    /// What has to be asked to show what is here.
    pub fn want(&self) -> Want {
        // What was removed and has connections still has no name to ask by.
        let named = |service: &String| ServiceKey::parse(service).map(|_| service.clone());
        let without = StatsOf { services: Some(false), ..StatsOf::default() };
        match &self.level().place {
            Place::Services => Want::default(),
            Place::Servers { service } => {
                Want { stats: StatsOf { service: named(service), ..StatsOf::default() }, connections: None }
            }
            Place::Connections { service, server } => {
                let (limit, server) = (Some(CONNECTIONS), Some(server.clone()));
                let of = ConnectionsOf { limit, service: named(service), server };
                Want { stats: without, connections: Some(of) }
            }
            Place::Drops | Place::Events => Want { stats: without, connections: None },
        }
    }
    /// Has the cursor on a row that there is, and on the screen.
    pub fn settle(&mut self, rows: &[&Row], page: usize) {
        self.level_mut().settle(rows, page.max(1));
    }
    /// The service, or server, is gone: back to the services.
    pub fn gone(&mut self, why: String) {
        self.levels.truncate(1);
        self.typing = false;
        self.note = Some(why);
    }

    /// A key was pressed while these rows were shown, `page` of them at once.
    pub fn press(&mut self, key: KeyEvent, rows: &[&Row], page: usize) -> Effect {
        self.note = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Effect::Quit,
                KeyCode::Char('z') => Effect::Suspend,
                KeyCode::Char('l') => Effect::Clear,
                KeyCode::Char('u') if self.typing => self.filtered(String::clear),
                // A terminal's other name for the key.
                KeyCode::Char('h') => self.press(KeyEvent::from(KeyCode::Backspace), rows, page),
                _ => Effect::Draw,
            };
        }
        if self.help {
            self.help = false;
            return Effect::Draw;
        }
        if let Some(to) = self.moved(key.code, rows.len(), page.max(1)) {
            self.level_mut().go(rows, to);
            return Effect::Draw;
        }
        if self.typing { self.typed(key.code) } else { self.commanded(key.code, rows) }
    }

    /// Where a key takes the cursor.
    fn moved(&self, key: KeyCode, rows: usize, page: usize) -> Option<usize> {
        let at = self.level().cursor;
        let letter = |wanted| !self.typing && key == KeyCode::Char(wanted);
        match key {
            KeyCode::Up => Some(at.saturating_sub(1)),
            KeyCode::Down => Some(at + 1),
            KeyCode::PageUp => Some(at.saturating_sub(page)),
            KeyCode::PageDown => Some(at + page),
            KeyCode::Home => Some(0),
            KeyCode::End => Some(rows.saturating_sub(1)),
            _ if letter('k') => Some(at.saturating_sub(1)),
            _ if letter('j') => Some(at + 1),
            _ if letter('g') => Some(0),
            _ if letter('G') => Some(rows.saturating_sub(1)),
            _ => None,
        }
    }

    fn filtered(&mut self, change: impl FnOnce(&mut String)) -> Effect {
        let level = self.level_mut();
        change(&mut level.filter);
        (level.cursor, level.first, level.followed) = (0, 0, None);
        Effect::Draw
    }

    /// While the filter is typed.
    fn typed(&mut self, key: KeyCode) -> Effect {
        match key {
            KeyCode::Char(letter) => self.filtered(|filter| filter.push(letter)),
            KeyCode::Backspace => self.filtered(|filter| _ = filter.pop()),
            KeyCode::Enter => {
                self.typing = false;
                Effect::Draw
            }
            KeyCode::Esc => {
                self.typing = false;
                self.filtered(String::clear)
            }
            _ => Effect::Draw,
        }
    }

    fn commanded(&mut self, key: KeyCode, rows: &[&Row]) -> Effect {
        match key {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Enter => return self.enter(rows),
            KeyCode::Esc | KeyCode::Backspace => return self.back(),
            KeyCode::Char('d') => return self.aside(Place::Drops),
            KeyCode::Char('e') => return self.aside(Place::Events),
            KeyCode::Char('s' | '>') => self.sort_by(|at, columns| (at + 1) % columns),
            KeyCode::Char('<') => self.sort_by(|at, columns| (at + columns - 1) % columns),
            KeyCode::Char('r') => {
                let sort = self.sort();
                self.set_sort(Sort { descending: !sort.descending, ..sort });
            }
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('p' | ' ') => {
                self.paused = !self.paused;
                return if self.paused { Effect::Hold } else { Effect::Ask };
            }
            KeyCode::Char('+') => self.step(|now, one| one > now, false),
            KeyCode::Char('-') => self.step(|now, one| one < now, true),
            _ => {}
        }
        Effect::Draw
    }

    /// To what the row under the cursor stands for.
    fn enter(&mut self, rows: &[&Row]) -> Effect {
        let Some(row) = rows.get(self.level().cursor) else { return Effect::Draw };
        let id = row.id.clone();
        let to = match &self.level().place {
            Place::Services => Place::Servers { service: id },
            Place::Servers { service } => Place::Connections { service: service.clone(), server: id },
            Place::Connections { .. } | Place::Drops | Place::Events => return Effect::Draw,
        };
        // Whence one came is where one comes back to.
        let at = self.level().cursor;
        self.level_mut().go(rows, at);
        self.levels.push(Level::at(to));
        Effect::Ask
    }

    /// The filter goes first, then the place.
    fn back(&mut self) -> Effect {
        if !self.level().filter.is_empty() {
            return self.filtered(String::clear);
        }
        if self.levels.len() == 1 {
            return Effect::Draw;
        }
        self.levels.pop();
        Effect::Ask
    }

    /// To what is shown instead of the levels, or back.
    fn aside(&mut self, place: Place) -> Effect {
        let here = self.level().place.clone();
        if matches!(here, Place::Drops | Place::Events) {
            self.levels.pop();
        }
        if here != place {
            self.levels.push(Level::at(place));
        }
        Effect::Ask
    }

    /// Numbers begin with the largest, words with the first.
    fn sort_by(&mut self, next: impl Fn(usize, usize) -> usize) {
        let columns: &[Column] = rows::columns(self.level().place.kind());
        let column = next(self.sort().column, columns.len());
        self.set_sort(Sort { column, descending: columns.get(column).is_some_and(|column| column.number) });
    }

    /// To the nearest interval that is one.
    fn step(&mut self, wanted: impl Fn(Duration, Duration) -> bool, down: bool) {
        let mut all = INTERVALS.map(Duration::from_millis);
        if down {
            all.reverse();
        }
        let now = self.interval;
        self.interval = all.into_iter().find(|one| wanted(now, *one)).unwrap_or(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "tcp 192.0.2.10:80";

    fn rows(ids: &[&str]) -> Vec<Row> {
        ids.iter().map(|id| Row { id: (*id).to_owned(), ..Row::default() }).collect()
    }

    /// A state at work, with these rows on a screen for three.
    struct Desk {
        state: State,
        rows: Vec<Row>,
    }

    impl Desk {
        fn of(ids: &[&str]) -> Self {
            Self { state: State::new(Duration::from_secs(2), None), rows: rows(ids) }
        }
        fn press(&mut self, code: KeyCode) -> Effect {
            self.event(KeyEvent::from(code))
        }
        fn event(&mut self, event: KeyEvent) -> Effect {
            let rows: Vec<&Row> = self.rows.iter().collect();
            let effect = self.state.press(event, &rows, 3);
            self.state.settle(&rows, 3);
            effect
        }
        fn letters(&mut self, letters: &str) {
            letters.chars().for_each(|letter| _ = self.press(KeyCode::Char(letter)));
        }
        fn at(&self) -> (usize, usize) {
            (self.state.level().cursor, self.state.level().first)
        }
    }

    #[test]
    fn the_cursor_moves_and_stays_on_the_screen() {
        let mut desk = Desk::of(&["a", "b", "c", "d", "e", "f", "g"]);
        for (key, at) in [
            (KeyCode::Up, (0, 0)),
            (KeyCode::Down, (1, 0)),
            (KeyCode::Char('j'), (2, 0)),
            (KeyCode::Down, (3, 1)),
            (KeyCode::PageDown, (6, 4)),
            (KeyCode::PageDown, (6, 4)),
            (KeyCode::Char('k'), (5, 4)),
            (KeyCode::PageUp, (2, 2)),
            (KeyCode::End, (6, 4)),
            (KeyCode::Home, (0, 0)),
            (KeyCode::Char('G'), (6, 4)),
            (KeyCode::Char('g'), (0, 0)),
        ] {
            assert_eq!((desk.press(key), desk.at()), (Effect::Draw, at), "{key:?}");
        }
    }

    #[test]
    fn the_cursor_follows_its_row_once_it_was_moved() {
        let mut desk = Desk::of(&["a", "b", "c", "d"]);
        desk.rows.rotate_right(1);
        desk.press(KeyCode::Null);
        assert_eq!(desk.at(), (0, 0), "what is first stays first");
        desk.press(KeyCode::Down);
        desk.rows.rotate_right(2);
        desk.press(KeyCode::Null);
        assert_eq!(desk.rows[desk.at().0].id, "a");
        desk.rows.retain(|row| row.id != "a");
        desk.press(KeyCode::Null);
        assert_eq!(desk.at().0, 2, "what took its place");
        desk.rows.clear();
        desk.press(KeyCode::Down);
        assert_eq!((desk.at(), desk.press(KeyCode::Enter)), ((0, 0), Effect::Draw));
    }

    #[test]
    fn enter_goes_down_and_escape_comes_back() {
        let mut desk = Desk::of(&["udp 192.0.2.10:53", SERVICE]);
        desk.press(KeyCode::Down);
        assert_eq!(desk.press(KeyCode::Enter), Effect::Ask);
        assert_eq!(desk.state.level().place, Place::Servers { service: SERVICE.into() });
        assert_eq!(desk.state.want().stats.service.as_deref(), Some(SERVICE));
        let above = std::mem::replace(&mut desk.rows, rows(&["10.0.0.2:8080"]));
        assert_eq!(desk.press(KeyCode::Enter), Effect::Ask);
        assert_eq!(desk.state.way(), ["services", SERVICE, "10.0.0.2:8080"]);
        let want = desk.state.want();
        let of = want.connections.unwrap();
        assert_eq!((of.limit, of.service.as_deref()), (Some(CONNECTIONS), Some(SERVICE)));
        assert_eq!((of.server.as_deref(), want.stats.services), (Some("10.0.0.2:8080"), Some(false)));
        assert_eq!(desk.press(KeyCode::Enter), Effect::Draw, "there is nothing below");
        assert_eq!(desk.press(KeyCode::Backspace), Effect::Ask);
        desk.rows = above;
        assert_eq!(desk.press(KeyCode::Esc), Effect::Ask);
        assert_eq!((desk.state.level().place.clone(), desk.at()), (Place::Services, (1, 0)), "where one came from");
        assert_eq!((desk.press(KeyCode::Esc), desk.state.way()), (Effect::Draw, vec!["services"]));
        assert_eq!(desk.state.want(), Want::default());
    }

    #[test]
    fn a_removed_service_is_found_among_all() {
        let mut desk = Desk::of(&["tcp removed"]);
        desk.press(KeyCode::Enter);
        assert_eq!(desk.state.want().stats, StatsOf::default());
        desk.state.gone("it is gone".into());
        assert_eq!((desk.state.way(), desk.state.note.as_deref()), (vec!["services"], Some("it is gone")));
        desk.press(KeyCode::Null);
        assert_eq!(desk.state.note, None, "it was read");
    }

    #[test]
    fn drops_and_events_are_aside() {
        let mut desk = Desk::of(&[SERVICE]);
        desk.press(KeyCode::Enter);
        let without = Want { stats: StatsOf { services: Some(false), ..StatsOf::default() }, connections: None };
        for (key, way) in
            [('d', Some("drops")), ('e', Some("events")), ('e', None), ('e', Some("events")), ('d', Some("drops"))]
        {
            assert_eq!(desk.press(KeyCode::Char(key)), Effect::Ask);
            let wanted: Vec<_> = ["services", SERVICE].into_iter().chain(way).collect();
            assert_eq!(desk.state.way(), wanted);
            assert!(way.is_none() || desk.state.want() == without);
        }
        assert_eq!((desk.press(KeyCode::Esc), desk.state.way()), (Effect::Ask, vec!["services", SERVICE]));
    }

    #[test]
    fn a_filter_is_typed_kept_and_cleared() {
        let mut desk = Desk::of(&["a", "b"]);
        desk.press(KeyCode::Down);
        desk.letters("/jqx");
        assert_eq!((desk.state.level().filter.as_str(), desk.at()), ("jqx", (0, 0)), "letters are letters here");
        desk.press(KeyCode::Backspace);
        desk.press(KeyCode::Down);
        assert_eq!((desk.state.typing, desk.at().0), (true, 1), "arrows are arrows");
        desk.press(KeyCode::Enter);
        assert_eq!((desk.state.typing, desk.state.level().filter.as_str()), (false, "jq"));
        desk.press(KeyCode::Esc);
        assert_eq!(desk.state.level().filter, "");
        desk.letters("/ab");
        desk.event(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
        assert_eq!((desk.state.typing, desk.state.level().filter.as_str()), (true, ""));
        desk.letters("c");
        desk.press(KeyCode::Esc);
        assert_eq!((desk.state.typing, desk.state.level().filter.as_str()), (false, ""));
        desk.letters("/a");
        desk.event(KeyEvent::new(KeyCode::Char('h'), KeyModifiers::CONTROL));
        assert_eq!(desk.state.level().filter, "");
    }

    #[test]
    fn the_order_is_each_tables_own() {
        let mut desk = Desk::of(&[SERVICE]);
        let columns = rows::columns(Kind::Services);
        assert_eq!(desk.state.sort(), Sort { column: 0, descending: false });
        desk.letters("s");
        assert_eq!(desk.state.sort(), Sort { column: 1, descending: columns[1].number });
        desk.letters("<<");
        let last = columns.len() - 1;
        assert_eq!(desk.state.sort(), Sort { column: last, descending: columns[last].number }, "round the end");
        desk.letters("r");
        assert_eq!(desk.state.sort(), Sort { column: last, descending: !columns[last].number });
        let chosen = desk.state.sort();
        desk.press(KeyCode::Enter);
        assert_eq!(desk.state.sort(), Kind::Servers.sort());
        desk.letters(">r");
        desk.press(KeyCode::Esc);
        assert_eq!(desk.state.sort(), chosen);
        desk.letters(">");
        assert_eq!(desk.state.sort(), Sort { column: 0, descending: false });
    }

    #[test]
    fn intervals_pauses_help_and_the_end() {
        let mut desk = Desk::of(&["a"]);
        let mut after = |key: char| {
            desk.press(KeyCode::Char(key));
            desk.state.interval.as_millis()
        };
        assert_eq!(['+', '+', '-', '-', '-'].map(&mut after), [5000, 10_000, 5000, 2000, 1000]);
        assert_eq!(["-"; 6].map(|_| after('-')).last(), Some(&100));
        assert_eq!(["+"; 12].map(|_| after('+')).last(), Some(&60_000));
        desk.state.interval = Duration::from_millis(1500);
        desk.letters("-");
        assert_eq!(desk.state.interval, Duration::from_secs(1), "one that was asked for is between two");
        assert_eq!((desk.press(KeyCode::Char('p')), desk.state.paused), (Effect::Hold, true));
        assert_eq!((desk.press(KeyCode::Char(' ')), desk.state.paused), (Effect::Ask, false));
        desk.letters("?");
        assert!(desk.state.help);
        assert_eq!((desk.press(KeyCode::Char('q')), desk.state.help), (Effect::Draw, false), "any key closes it");
        assert_eq!(desk.press(KeyCode::Char('q')), Effect::Quit);
        for (key, effect) in [('c', Effect::Quit), ('z', Effect::Suspend), ('l', Effect::Clear), ('x', Effect::Draw)] {
            let event = KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL);
            assert_eq!(desk.event(event), effect);
        }
        desk.letters("/");
        assert_eq!(desk.event(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Effect::Quit);
    }
}
