"""Files in the exact formats of their publishers, with the known defects, in small."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

GENRES_100K = 19


def zip_file(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write a zip with ``members`` (name -> content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tar_bytes(members: Mapping[str, bytes]) -> bytes:
    """Return an uncompressed tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def gz_file(path: Path, content: bytes) -> Path:
    """Write a gzip file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0))
    return path


def genre_marks(*on: int) -> str:
    """Return the 19 marks of u.item, "1" at the places ``on``."""
    return "|".join("1" if i in on else "0" for i in range(GENRES_100K))


def movielens_100k() -> dict[str, bytes]:
    """u.item is Latin-1 and has film 267; u.data has tabs; one row of each is broken."""
    address = "http://us.imdb.com/M/title-exact?Mis%E9rables%20(1995)"
    items = [
        f"1|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/1|{genre_marks(3, 4, 5)}",
        f"2|Misérables, Les (1995)|01-Jan-1995||{address}|{genre_marks(8, 12)}",
        f"267|unknown||||{genre_marks(0)}",
        "268|Chasing Amy (1997)|cut short",
        f"269|Full Monty, The (1997)|01-Jan-1997||x|{genre_marks(5)}",
    ]
    log = ["196\t1\t3\t881250949", "186\t2\t3\t891717742", "22\t267\t1\t878887116",
           "244\t2\t?\t880606923", "166\t1\t1\tnever", "298\t269\t4\t884182806",
           "7\t1\t5"]  # fmt: skip
    users = ["196|49|M|writer|55105", "186|39|F|executive|V5A2B", "22|25|M|writer|40206",
             "298|44|M|executive|01581"]  # fmt: skip
    return {
        "ml-100k/u.item": ("\n".join(items) + "\n").encode("latin-1"),
        "ml-100k/u.data": ("\n".join(log) + "\n").encode(),
        "ml-100k/u.user": ("\n".join(users) + "\n").encode("latin-1"),
        "ml-100k/README": b"terms",
    }


def movielens_1m() -> dict[str, bytes]:
    """Two colons between values; titles with colons and accents; codes of age and occupation."""
    movies = ["1::Toy Story (1995)::Animation|Children's|Comedy",
              "73::Misérables, Les (1995)::Drama|Musical",
              "260::Star Wars: Episode IV - A New Hope (1977)::Action|Sci-Fi"]  # fmt: skip
    users = ["1::F::1::10::48067", "2::M::56::16::70072-1234", "3::M::25::99::55117"]
    log = ["1::1::5::978300760", "1::73::3::978302109", "2::260::4::978301968",
           "3::1::4::978300275", "3::1", "2::1::x::978301968"]  # fmt: skip
    return {
        "ml-1m/movies.dat": ("\n".join(movies) + "\n").encode("latin-1"),
        "ml-1m/users.dat": ("\n".join(users) + "\n").encode("latin-1"),
        "ml-1m/ratings.dat": ("\n".join(log) + "\n").encode("latin-1"),
    }


def movielens_csv(folder: str) -> dict[str, bytes]:
    """CRLF between rows as in the published files; quoted titles; a stray quote spoils one row."""
    movies = ["movieId,title,genres", "1,Toy Story (1995),Adventure|Animation",
              '11,"American President, The (1995)",Comedy|Drama',
              '2000,"Say ""Hello"" (1999)",Drama', "99999,Naïve (2020),(no genres listed)",
              '5,"never closed (1990),Drama', "6,Heat (1995),Action"]  # fmt: skip
    links = ["movieId,imdbId,tmdbId", "1,0114709,862", "11,0112346,9087", "99999,0000001,"]
    log = ["userId,movieId,rating,timestamp", "1,1,4.0,964982703", "1,11,0.5,964981247",
           "2,2000,3.5,1445714835", "2,6,five,1445714835", "3,6,4.5,1445714835.5",
           "3,99999,5.0,1445715029"]  # fmt: skip
    tags = ["userId,movieId,tag,timestamp", '2,1,"funny, for ""kids""",1445714994',
            "2,11,,1445714996", "2,11,politics,soon"]  # fmt: skip
    files = {"movies": movies, "links": links, "ratings": log, "tags": tags}
    return {
        f"{folder}/{name}.csv": ("\r\n".join(rows) + "\r\n").encode()
        for name, rows in files.items()
    }


def lastfm() -> dict[str, bytes]:
    """Headers; tags.dat in Latin-1; a wrong byte in an artist; milliseconds; times before 1970."""
    artists = (
        "id\tname\turl\tpictureURL\n"
        "1\tMALICE MIZER\thttp://www.last.fm/music/MALICE+MIZER\thttp://userserve-ak.last.fm/1.jpg\n"
        '2\tDiary of "Dreams\thttp://www.last.fm/music/Diary\thttp://userserve-ak.last.fm/2.jpg\n'
        "3\tSigur Rós\thttp://www.last.fm/music/Sigur\t\n"
    ).encode() + b"4\tCaf\xe9 del Mar\thttp://www.last.fm/music/Cafe\t\n"
    tags = "tagID\ttagValue\n1\tmetal\n2\tfrançais\n3\t80's\n".encode("latin-1")
    log = "userID\tartistID\tweight\n2\t1\t13883\n2\t2\t11690\n3\t1\t1\n3\t4\tmany\n"
    tagged = ("userID\tartistID\ttagID\ttimestamp\n2\t1\t1\t1238536800000\n3\t1\t1\t1238536800000\n"
              "2\t1\t2\t1238536800000\n2\t2\t3\t-428720400000\n2\t99\t1\t1238536800000\n"
              "2\t2\t77\t1238536800000\n")  # fmt: skip
    friends = "userID\tfriendID\n2\t3\n3\t2\n"
    return {
        "artists.dat": artists, "tags.dat": tags, "user_artists.dat": log.encode(),
        "user_taggedartists-timestamps.dat": tagged.encode(),
        "user_taggedartists.dat": b"userID\tartistID\ttagID\tday\tmonth\tyear\n",
        "user_friends.dat": friends.encode(), "readme.txt": b"terms",
    }  # fmt: skip


def bookcrossing() -> dict[str, bytes]:
    """Escaped quotes, entities, shifted columns, a record of two lines, odd ages, years, ISBNs."""
    image = "http://images.amazon.com/images/P/{}.01.{}.jpg"

    def urls(isbn: str) -> str:
        return ";".join(f'"{image.format(isbn, size)}"' for size in ("THUMBZZZ", "MZZZZZZZ", "LZZ"))

    books = [
        '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"Image-URL-S";'
        '"Image-URL-M";"Image-URL-L"',
        f'"0195153448";"Classical Mythology";"Mark P. O. Morford";"2002";"Oxford";{urls("1")}',
        '"0684867621";"The Girl; Loved \\"Tom\\" Gordon";"King &amp; Co";"1999";"Scribner";'
        f"{urls('2')}",
        '"078946697X";"DK Readers: X-Men (Level 4)\\";Michael Teitelbaum\\"";"2000";"DK";'
        f"{urls('3')}",
        f'"3257224281";"Fräulein Smilla";"Peter Høeg";"0";"Diogenes";{urls("4")}',
        f'"0380000059";"Tomorrow";"Nobody";"2037";"Avon";{urls("5")}',
        '"0380000067";"cut short";"Somebody"',
    ]
    users = [
        '"User-ID";"Location";"Age"', '"1";"nyc, new york, usa";NULL',
        '"2";"stockton, california, usa";"18"', '"3";"são paulo, \\"sp\\", brazil";"244"',
        '"4";"cernusco s', ', milan, italy";"33"', '"5";"nowhere, n/a, n/a";"2"',
        '"6";"open, quote', '"7";"porto, v.n.gaia, portugal";"17"',
    ]  # fmt: skip
    log = [
        '"User-ID";"ISBN";"Book-Rating"', '"1";"0195153448";"0"', '"2";"0684867621";"5"',
        '"2";"0 6848-67621";"7"', '"3";"078946697x";"10"', '"3";"\\"3257224281";"8"',
        '"4";"9999999999";"6"', '"7";"0195153448";"11"', '"7";"...";"3"', '"7";"0380000059";"9"',
    ]  # fmt: skip
    return {
        "BX-Books.csv": ("\r\n".join(books) + "\r\n").encode("latin-1"),
        "BX-Users.csv": ("\n".join(users) + "\n").encode("latin-1"),
        "BX-Book-Ratings.csv": ("\r\n".join(log) + "\r\n").encode("latin-1"),
    }


def mind() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the members of the training and the validation part: no header, no quoting."""
    entity = '[{"Label": "Prince", "Type": "P", "WikidataId": "Q43", "SurfaceForms": ["Prince"]}]'
    news = [
        f'N1\tlifestyle\troyals\tThe "Brands the Queen Swears By\tShop now.\thttps://x/1\t{entity}\t[]',
        "N2\tnews\tworld\tFifty days\t\thttps://x/2\t[]\t[]",
        "N3\tsports\tnfl\tCut short",
        "N4\tsports\tnfl\tA comeback\tIt was one.\thttps://x/4\t[]\t[]",
    ]
    train = [
        "1\tU10\t11/13/2019 8:36:57 AM\tN4 N2\tN1-1 N2-0",
        "2\tU11\t11/11/2019 1:03:52 PM\t\tN2-0 N4-1 N1-1",
        "3\tU12\t13/40/2019 1:03:52 PM\tN1\tN2-1",
        "4\tU12\t11/12/2019 6:11:30 PM\tN1",
        "5\tU12\t11/12/2019 12:00:00 AM\tN1\tN2 N4-0",
    ]
    dev_news = [news[1], "N5\tnews\tpolitics\tNew in dev\tText.\thttps://x/5\t[]\t[]"]
    dev = ["1\tU10\t11/15/2019 8:55:22 AM\tN4 N2 N1\tN5-1 N4-0"]

    def members(items: list[str], log: list[str], folder: str) -> dict[str, bytes]:
        files = {"news.tsv": items, "behaviors.tsv": log}
        return {f"{folder}{n}": ("\n".join(r) + "\n").encode() for n, r in files.items()}

    return members(news, train, ""), members(dev_news, dev, "MINDsmall_dev/")
