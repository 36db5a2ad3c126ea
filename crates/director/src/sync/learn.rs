//! What another director told of a connection or template becomes an entry, or changes one, or
//! ends one. User space has decided which (`dirigent_sync::backup`) and runs it as a step of its
//! own; what packets did meanwhile, the entry's tag tells.

use crate::conn::{self, Expiry, Held};
use crate::family::{Address, Family, V4, V6};
use crate::ftp;
use crate::open::{self, Bound, Wish};
use crate::persist::{self, Whose};
use crate::records::{Conn, Lesson, Tuple, conn_flag, lesson};
use crate::reset;
use crate::tables::{Insert, Tables};

/// Where entries are put together. Not on the stack, and not where packets do it, which may come
/// between.
#[derive(Clone, Debug, Default)]
pub struct Room<F: Family> {
    key: Tuple<F::Addr>,
    conn: Conn<F::Addr>,
    reply: Tuple<F::Addr>,
}

/// Does one lesson, and writes what came of it.
#[inline(always)]
pub fn learn<T: Tables>(t: &mut T, lesson: &mut Lesson, four: &mut Room<V4>, six: &mut Room<V6>) {
    lesson.result = if lesson.flags & lesson::V6 != 0 {
        learn_as::<V6, T>(t, lesson, six)
    } else {
        learn_as::<V4, T>(t, lesson, four)
    };
}

#[inline(never)]
fn learn_as<F: Family, T: Tables>(t: &mut T, lesson: &Lesson, room: &mut Room<F>) -> u32 {
    let key = &lesson.key;
    room.key = Tuple {
        src: Address::from_words(&key.src.0),
        dst: Address::from_words(&key.dst.0),
        sport: key.sport,
        dport: key.dport,
        protocol: key.protocol,
    };
    let [_, template, ..] = key.protocol;
    let there = conn::held::<F, T>(t, &room.key).filter(|held| held.lasts());
    match there {
        None if lesson.tag != 0 => lesson::CHANGED,
        None if template != 0 => template_of::<F, T>(t, lesson, room),
        None => connection_of::<F, T>(t, lesson, room),
        Some(held) if held.word.tag() != lesson.tag => lesson::CHANGED,
        Some(held) if lesson.flags & lesson::FORGET == 0 => update::<F, T>(t, lesson, &room.key, &held, template != 0),
        // Its client is here by now.
        Some(held) if lesson.flags & lesson::UNLESS_OWN != 0 && held.told().origin() == 0 => lesson::CHANGED,
        Some(_) => match conn::expire::<F, T>(t, &room.key, true) {
            Expiry::Gone => lesson::DONE,
            Expiry::Alive | Expiry::Absent => lesson::CHANGED,
        },
    }
}

/// What both new and changed entries are set to.
#[inline(always)]
fn set<A>(entry: &Conn<A>, lesson: &Lesson, last_seen: u32) {
    entry.last_seen.store(last_seen);
    entry.packets.store(lesson.packets);
    entry.told_until().store(lesson.until);
    entry.extra.store(lesson.told);
}

#[inline(always)]
fn update<F: Family, T: Tables>(
    t: &T,
    lesson: &Lesson,
    key: &Tuple<F::Addr>,
    held: &Held<'_, F::Addr>,
    template: bool,
) -> u32 {
    // What is being reset here goes, whatever others know of it.
    if !template && reset::is_marked(key.proto(), held.word) {
        return lesson::CHANGED;
    }
    let now = t.now();
    if template {
        held.timeout.store(lesson.timeout);
    }
    if !conn::set_state::<F, T>(t, key, held, lesson.state as u8) {
        return lesson::CHANGED;
    }
    // Another's clock may say that it is older than is known here.
    let idle = conn::age(now, held.last_seen.load());
    set(held, lesson, now.wrapping_sub(if idle < lesson.idle { idle } else { lesson.idle }));
    lesson::DONE
}

#[inline(always)]
fn connection_of<F: Family, T: Tables>(t: &mut T, lesson: &Lesson, room: &mut Room<F>) -> u32 {
    let word = Wish::word(lesson.mark, Some(lesson.server));
    let mut wish = Wish::new(lesson.service, 0, 0, false, word);
    (wish.state, wish.port, wish.learned) = (lesson.state as u8, lesson.port, true);
    wish.whose.flags = ftp::flag(&room.key);
    let mut bound = open::bind::<F, T>(t, &room.key, &wish, &mut room.conn, &mut room.reply);
    if let Bound::Taken = bound
        && conn::expire::<F, T>(t, &room.reply, false) != Expiry::Alive
    {
        bound = open::bind::<F, T>(t, &room.key, &wish, &mut room.conn, &mut room.reply);
    }
    match bound {
        Bound::Done => {}
        Bound::There => return lesson::CHANGED,
        Bound::Taken => return lesson::TAKEN,
        Bound::Refused(verdict) if verdict.reason as u8 == crate::Reason::TableFull as u8 => return lesson::FULL,
        Bound::Refused(_) => return lesson::REFUSED,
    }
    let last_seen = t.now().wrapping_sub(lesson.idle);
    if let Some(entry) = F::conn(t, &room.key) {
        set(entry, lesson, last_seen);
        // The answers' entry is as old.
        if conn::paired(entry.kind)
            && let Some(reply) = F::conn(t, &room.reply)
        {
            reply.last_seen.store(last_seen);
        }
    }
    lesson::DONE
}

#[inline(always)]
fn template_of<F: Family, T: Tables>(t: &mut T, lesson: &Lesson, room: &mut Room<F>) -> u32 {
    let Some(mask) = t.service(lesson.service).map(|service| service.mask) else { return lesson::REFUSED };
    let bit = |from, to| if lesson.flags & from != 0 { to } else { 0 };
    let flags = bit(lesson::ANY_PORT, conn_flag::ANY_PORT) | bit(lesson::BY_MARK, conn_flag::BY_MARK);
    let whose = Whose { mask, mark: lesson.mark, tag: t.random() | 1, flags };
    let of = (lesson.server, lesson.service, lesson.timeout);
    match persist::enter::<F, T>(t, &room.key, &mut room.conn, of, &whose) {
        Some(Insert::Done) => {}
        Some(Insert::Exists) => return lesson::CHANGED,
        Some(Insert::Full) => return lesson::FULL,
        None => return lesson::REFUSED,
    }
    let last_seen = t.now().wrapping_sub(lesson.idle);
    if let Some(held) = conn::held::<F, T>(t, &room.key) {
        conn::set_state::<F, T>(t, &room.key, &held, lesson.state as u8);
        set(&held, lesson, last_seen);
    }
    lesson::DONE
}
