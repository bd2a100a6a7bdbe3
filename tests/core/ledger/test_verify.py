from tests.core.ledger.book import Book, pay


async def test_smoke(book: Book) -> None:
    await book.open("a", "b")
    await book.fund(100, "a", "b")
    print(await book.one(pay("x", "a", "b", 7)))
    h = await book.hold("h", ("a", -20), ("b", 15), ("cash", 5))
    print(await book.capture("c", h, 7))
    print(await book.reverse("r", "x", 3))
    await book.seal()
    assert await book.faults() == []
