"""The application of the benchmark for FastAPI: a route with a number in its path."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    item_id: int
    name: str


@app.get("/items/{item_id}")
async def item(item_id: int) -> Item:
    return Item(item_id=item_id, name=f"item {item_id}")
