//! The library of audio files: what is in the folder, who uploaded it, and its tags.

use std::collections::HashMap;

use antiphon_core::ids::UserId;
use sqlx::{FromRow, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Result, Store, StoreError, micros, moment,
    pools::{Dialect, Lock, on_db, transaction},
};

/// Words that one search looks for; more are as good as these.
pub const SEARCH_WORDS_MAX: usize = 6;

/// Rows that one statement writes: SQLite takes no more than 32,766 values, and long statements hold others up.
const ROWS_AT_ONCE: usize = 200;

/// What a file counts for in the quotas at least: it has a name, a row and a block of the disk, however short it is.
const FILE_BYTES_COUNTED_MIN: u64 = 64 * 1_024;

/// A file that an upload or a tag wrote so lately, in microseconds, is believed more than a list that says otherwise: the list may
/// be older.
const TOUCHED_LATELY_US: i64 = 60_000_000;

/// A file as it lies in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSeen {
    /// Its path.
    pub path: String,
    /// In bytes.
    pub size_bytes: u64,
    /// When it was changed.
    pub modified: OffsetDateTime,
}

/// A file of the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryFile {
    /// As it lies in the folder.
    pub seen: FileSeen,
    /// Who uploaded it; `None` for what was put there otherwise, or by an account that is gone.
    pub owner: Option<UserId>,
    /// Whether it was uploaded, and so counts in the quotas.
    pub uploaded: bool,
    /// Its tags, in order.
    pub tags: Vec<String>,
    /// When an upload or a tag last wrote it.
    pub touched: Touched,
}

/// When an upload or a tag last wrote a file, in microseconds: what was found of it holds as long as this is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched(i64);

/// What to look for; what is `None` or empty excludes nothing.
#[derive(Clone, Debug, Default)]
pub struct LibraryQuery {
    /// Words, each of which the path or a tag must hold, without regard to case.
    pub words: Vec<String>,
    /// A tag.
    pub tag: Option<String>,
    /// Who uploaded it.
    pub owner: Option<UserId>,
    /// Whether files of recordings are wanted, too: not everyone may know of them.
    pub with_recordings: bool,
}

/// An upload that asks for its place.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The file, as it will lie there.
    pub file: FileSeen,
    /// Who uploads.
    pub by: UserId,
    /// Whether they may replace others' files, and have no quota of their own.
    pub is_admin: bool,
    /// Bytes that an account may have uploaded.
    pub account_bytes_max: u64,
    /// Bytes that all may have uploaded.
    pub total_bytes_max: u64,
}

/// What became of an upload that asked for its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It has it, since then.
    Granted(Touched),
    /// It asks only: there would be room for so many bytes.
    Room(u64),
    /// There is a file that somebody else put there.
    Others,
    /// The account has uploaded so many bytes besides.
    AccountFull(u64),
    /// All have uploaded so many bytes besides.
    TotalFull(u64),
}

#[derive(FromRow)]
struct FileRow {
    path: String,
    size_bytes: i64,
    modified_us: i64,
    uploaded: bool,
    owner_id: Option<Uuid>,
    touched_us: i64,
}

const WANTED: &str = "($1 IS NULL OR search LIKE $1 ESCAPE '!') AND ($2 IS NULL OR search LIKE $2 ESCAPE '!')
    AND ($3 IS NULL OR search LIKE $3 ESCAPE '!') AND ($4 IS NULL OR search LIKE $4 ESCAPE '!')
    AND ($5 IS NULL OR search LIKE $5 ESCAPE '!') AND ($6 IS NULL OR search LIKE $6 ESCAPE '!')
    AND ($7 IS NULL OR EXISTS (SELECT 1 FROM audio_tags WHERE audio_tags.path = audio_files.path AND tag = $7))
    AND ($8 IS NULL OR owner_id = $8)";

/// Without what belongs to recordings of channels, whose files are in folders of their ids.
const NO_RECORDINGS: &str = " AND path NOT LIKE 'recordings/________-____-____-____-____________/%'";

impl Store {
    /// Makes the library what `seen`, the folder as a list begun at `listed` had it, says. What is missing there is forgotten
    /// if that is `all` of the folder. False where files that were written lately are not as the list has them: another has to
    /// be compared later.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn sync_library(&self, seen: &[FileSeen], all: bool, listed: OffsetDateTime) -> Result<bool> {
        let known: Vec<(String, i64, i64, i64)> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT path, size_bytes, modified_us, touched_us FROM audio_files").fetch_all(db).await?
        });
        let mut known: HashMap<&str, (i64, i64, i64)> =
            known.iter().map(|(path, size, modified, touched)| (path.as_str(), (*size, *modified, *touched))).collect();
        let before = micros(listed) - TOUCHED_LATELY_US;
        let (mut changed, mut is_settled) = (Vec::new(), true);
        for file in seen {
            match known.remove(file.path.as_str()) {
                Some((size, modified, _)) if (size, modified) == (bytes(file.size_bytes), micros(file.modified)) => {}
                Some((_, _, touched)) if touched >= before => is_settled = false,
                _ => changed.push(file),
            }
        }
        let missing = known.iter().filter(|_| all);
        let (gone, lately): (Vec<_>, Vec<_>) = missing.partition(|(_, (_, _, touched))| *touched < before);
        let gone: Vec<&str> = gone.into_iter().map(|(path, _)| *path).collect();
        for files in changed.chunks(ROWS_AT_ONCE) {
            self.write_seen(files, before).await?;
        }
        for paths in gone.chunks(ROWS_AT_ONCE) {
            self.remove_files(paths, before).await?;
        }
        Ok(is_settled && lately.is_empty())
    }

    async fn write_seen(&self, files: &[&FileSeen], before_us: i64) -> Result<()> {
        transaction!(self, |tx| {
            let mut insert = QueryBuilder::new(
                "INSERT INTO audio_files (path, search, size_bytes, modified_us, uploaded, touched_us) ",
            );
            insert.push_values(files, |mut row, file| {
                row.push_bind(file.path.as_str())
                    .push_bind(file.path.to_lowercase())
                    .push_bind(bytes(file.size_bytes))
                    .push_bind(micros(file.modified))
                    .push_bind(false)
                    .push_bind(0_i64);
            });
            insert.push(
                " ON CONFLICT (path) DO UPDATE SET size_bytes = excluded.size_bytes, modified_us = excluded.modified_us
                 WHERE audio_files.touched_us < ",
            );
            insert.push_bind(before_us);
            insert.build().execute(&mut *tx).await?;
            tx.commit().await?;
            Ok(())
        })
    }

    async fn remove_files(&self, paths: &[&str], before_us: i64) -> Result<()> {
        transaction!(self, |tx| {
            let mut delete = QueryBuilder::new("DELETE FROM audio_files WHERE touched_us < ");
            delete.push_bind(before_us).push(" AND path IN (");
            let mut list = delete.separated(", ");
            for path in paths {
                list.push_bind(*path);
            }
            delete.push(")");
            delete.build().execute(&mut *tx).await?;
            tx.commit().await?;
            Ok(())
        })
    }

    /// A page of the files that `query` asks for, by path, and how many there are in all.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn library_page(&self, query: &LibraryQuery, limit: u32, offset: u64) -> Result<(Vec<LibraryFile>, u64)> {
        let mut patterns = query.words.iter().map(|word| super::listing::pattern_of(&word.to_lowercase()));
        let patterns: [Option<String>; SEARCH_WORDS_MAX] = std::array::from_fn(|_| patterns.next());
        let recordings = if query.with_recordings { "" } else { NO_RECORDINGS };
        let page = format!(
            "SELECT path, size_bytes, modified_us, uploaded, owner_id, touched_us FROM audio_files WHERE {WANTED}{recordings}
            ORDER BY path LIMIT $9 OFFSET $10"
        );
        let owner = query.owner.map(|owner| owner.0);
        let (rows, count): (Vec<FileRow>, i64) = on_db!(&self.readers, |db| {
            // Only text of our own is put together.
            let mut rows = sqlx::query_as(sqlx::AssertSqlSafe(page));
            let mut count = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
                "SELECT COUNT(*) FROM audio_files WHERE {WANTED}{recordings}"
            )));
            for pattern in &patterns {
                rows = rows.bind(pattern);
                count = count.bind(pattern);
            }
            let rows = rows
                .bind(&query.tag)
                .bind(owner)
                .bind(i64::from(limit))
                .bind(i64::try_from(offset).unwrap_or(i64::MAX));
            (rows.fetch_all(db).await?, count.bind(&query.tag).bind(owner).fetch_one(db).await?)
        });
        let tags = self.tags_of(rows.iter().map(|row| row.path.as_str())).await?;
        let files = rows.into_iter().map(|row| row.with(&tags)).collect::<Result<_>>()?;
        Ok((files, count.unsigned_abs()))
    }

    /// A file of the library.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn library_file(&self, path: &str) -> Result<Option<LibraryFile>> {
        let row: Option<FileRow> = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT path, size_bytes, modified_us, uploaded, owner_id, touched_us FROM audio_files WHERE path = $1",
            )
            .bind(path)
            .fetch_optional(db)
            .await?
        });
        let tags = self.tags_of(row.iter().map(|row| row.path.as_str())).await?;
        row.map(|row| row.with(&tags)).transpose()
    }

    async fn tags_of(&self, paths: impl Iterator<Item = &str>) -> Result<HashMap<String, Vec<String>>> {
        let paths: Vec<&str> = paths.collect();
        if paths.is_empty() {
            return Ok(HashMap::new());
        }
        let rows: Vec<(String, String)> = on_db!(&self.readers, |db| {
            let mut select = QueryBuilder::new("SELECT path, tag FROM audio_tags WHERE path IN (");
            let mut list = select.separated(", ");
            for path in &paths {
                list.push_bind(*path);
            }
            select.push(") ORDER BY path, tag");
            select.build_query_as().fetch_all(db).await?
        });
        let mut tags: HashMap<String, Vec<String>> = HashMap::new();
        for (path, tag) in rows {
            tags.entry(path).or_default().push(tag);
        }
        Ok(tags)
    }

    /// Gives an upload its place among all, if there is one: of uploads at once only as many as the quotas hold. One that is
    /// `asks_only` is told whether there would be.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn claim_file(&self, claim: &Claim, asks_only: bool) -> Result<Claimed> {
        let Claim { file, by, is_admin, account_bytes_max, total_bytes_max } = claim;
        let now_us = micros(OffsetDateTime::now_utc());
        transaction!(self, |tx| {
            Dialect::lock(&mut tx, Lock::Uploads).await?;
            let owner: Option<(Option<Uuid>,)> = sqlx::query_as("SELECT owner_id FROM audio_files WHERE path = $1")
                .bind(&file.path)
                .fetch_optional(&mut *tx)
                .await?;
            if owner.is_some_and(|(owner,)| owner != Some(by.0)) && !is_admin {
                return Ok(Claimed::Others);
            }
            let (own, all): (i64, i64) = sqlx::query_as(
                "SELECT CAST(COALESCE(SUM(CASE WHEN owner_id = $1 THEN counted ELSE 0 END), 0) AS BIGINT),
                        CAST(COALESCE(SUM(counted), 0) AS BIGINT)
                 FROM (SELECT owner_id, CASE WHEN size_bytes < $3 THEN $3 ELSE size_bytes END AS counted
                       FROM audio_files WHERE uploaded = TRUE AND path <> $2) AS others",
            )
            .bind(by.0)
            .bind(&file.path)
            .bind(bytes(FILE_BYTES_COUNTED_MIN))
            .fetch_one(&mut *tx)
            .await?;
            let (own, all) = (own.unsigned_abs(), all.unsigned_abs());
            let more = file.size_bytes.max(FILE_BYTES_COUNTED_MIN);
            if !is_admin && own.saturating_add(more) > *account_bytes_max {
                return Ok(Claimed::AccountFull(own));
            }
            if all.saturating_add(more) > *total_bytes_max {
                return Ok(Claimed::TotalFull(all));
            }
            if asks_only {
                let own_max = if *is_admin { u64::MAX } else { *account_bytes_max };
                return Ok(Claimed::Room(own_max.saturating_sub(own).min(total_bytes_max.saturating_sub(all))));
            }
            sqlx::query(
                "INSERT INTO audio_files (path, search, size_bytes, modified_us, uploaded, owner_id, touched_us)
                 VALUES ($1, $2, $3, $4, TRUE, $5, $6)
                 ON CONFLICT (path) DO UPDATE SET size_bytes = excluded.size_bytes, modified_us = excluded.modified_us,
                     uploaded = TRUE, owner_id = excluded.owner_id, touched_us = excluded.touched_us",
            )
            .bind(&file.path)
            .bind(file.path.to_lowercase())
            .bind(bytes(file.size_bytes))
            .bind(micros(file.modified))
            .bind(by.0)
            .bind(now_us)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(Claimed::Granted(Touched(now_us)))
        })
    }

    /// Puts a file into the library that this server made for somebody: it counts for no quota of uploads.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn add_library_file(&self, file: &FileSeen, owner: UserId) -> Result<()> {
        let now_us = micros(OffsetDateTime::now_utc());
        on_db!(&self.writers, |db| {
            sqlx::query(
                "INSERT INTO audio_files (path, search, size_bytes, modified_us, uploaded, owner_id, touched_us)
                 VALUES ($1, $2, $3, $4, FALSE, (SELECT id FROM users WHERE id = $5), $6)
                 ON CONFLICT (path) DO UPDATE SET size_bytes = excluded.size_bytes, modified_us = excluded.modified_us,
                     owner_id = excluded.owner_id, touched_us = excluded.touched_us",
            )
            .bind(&file.path)
            .bind(file.path.to_lowercase())
            .bind(bytes(file.size_bytes))
            .bind(micros(file.modified))
            .bind(owner.0)
            .bind(now_us)
            .execute(db)
            .await?;
        });
        Ok(())
    }

    /// Removes a file from the library, with its tags, unless it was written since; false when it was, or was not there.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn forget_file(&self, path: &str, Touched(touched_us): Touched) -> Result<bool> {
        on_db!(&self.writers, |db| {
            let done = sqlx::query("DELETE FROM audio_files WHERE path = $1 AND touched_us = $2")
                .bind(path)
                .bind(touched_us)
                .execute(db)
                .await?;
            Ok(done.rows_affected() > 0)
        })
    }

    /// Gives a file that was forgotten its owner and tags back, since it could not be removed. What was written at its path
    /// meanwhile stays.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn remember_file(&self, file: &LibraryFile) -> Result<()> {
        let LibraryFile { seen, owner, uploaded, tags, touched: Touched(touched_us) } = file;
        transaction!(self, |tx| {
            let written = sqlx::query(
                "INSERT INTO audio_files (path, search, size_bytes, modified_us, uploaded, owner_id, touched_us)
                 VALUES ($1, $2, $3, $4, $5, (SELECT id FROM users WHERE id = $6), $7) ON CONFLICT (path) DO NOTHING",
            )
            .bind(&seen.path)
            .bind(search_text(&seen.path, tags))
            .bind(bytes(seen.size_bytes))
            .bind(micros(seen.modified))
            .bind(*uploaded)
            .bind(owner.map(|owner| owner.0))
            .bind(touched_us)
            .execute(&mut *tx)
            .await?;
            if written.rows_affected() > 0 {
                for tag in tags {
                    sqlx::query(
                        "INSERT INTO audio_tags (path, tag) VALUES ($1, $2) ON CONFLICT (path, tag) DO NOTHING",
                    )
                    .bind(&seen.path)
                    .bind(tag)
                    .execute(&mut *tx)
                    .await?;
                }
            }
            tx.commit().await?;
            Ok(())
        })
    }

    /// Gives a file these tags instead of those it had.
    ///
    /// # Errors
    /// `Missing` when it is not in the library.
    pub async fn set_tags(&self, path: &str, tags: &[String]) -> Result<()> {
        let search = search_text(path, tags);
        let now_us = micros(OffsetDateTime::now_utc());
        transaction!(self, |tx| {
            let written = sqlx::query("UPDATE audio_files SET search = $2, touched_us = $3 WHERE path = $1")
                .bind(path)
                .bind(&search)
                .bind(now_us)
                .execute(&mut *tx)
                .await?;
            if written.rows_affected() == 0 {
                return Err(StoreError::Missing);
            }
            sqlx::query("DELETE FROM audio_tags WHERE path = $1").bind(path).execute(&mut *tx).await?;
            for tag in tags {
                sqlx::query("INSERT INTO audio_tags (path, tag) VALUES ($1, $2) ON CONFLICT (path, tag) DO NOTHING")
                    .bind(path)
                    .bind(tag)
                    .execute(&mut *tx)
                    .await?;
            }
            tx.commit().await?;
            Ok(())
        })
    }
}

impl FileRow {
    fn with(self, tags: &HashMap<String, Vec<String>>) -> Result<LibraryFile> {
        Ok(LibraryFile {
            owner: self.owner_id.map(UserId),
            uploaded: self.uploaded,
            touched: Touched(self.touched_us),
            tags: tags.get(&self.path).cloned().unwrap_or_default(),
            seen: FileSeen {
                size_bytes: self.size_bytes.unsigned_abs(),
                modified: moment(self.modified_us)?,
                path: self.path,
            },
        })
    }
}

/// What searches look into.
fn search_text(path: &str, tags: &[String]) -> String {
    format!("{path} {}", tags.join(" ")).to_lowercase()
}

fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
