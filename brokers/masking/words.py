"""Words that made-up values are put together from."""

from __future__ import annotations

from typing import Final

_FIRST_NAMES = """
Ada Alba Amir Anna Arne Aya Bela Berta Bodo Carla Cem Clara Dario Dina Edda Elif Emil Enzo Erik Esra Fabia
Femi Finn Flora Gero Gita Greta Hana Henk Hilda Ida Ilias Inga Ivo Jana Jaro Jona Juna Kai Karim Kira Lars Lea
Leon Lina Lotte Luca Maja Marek Mila Mona Nadja Nils Nora Olga Orla Oskar Otis Paul Pia Quirin Rana Rosa Ruben
Sana Selma Silas Sofia Stella Tariq Tessa Theo Tilda Udo Uma Vera Viktor Wanda Wim Xenia Yara Yusuf Zoe Zora
"""
_LAST_NAMES = """
Adler Amsel Anders Bach Baum Berg Birke Blum Brandt Bruun Busch Carlsen Dorn Duarte Eiche Ekdal Engel Erlen
Falk Farkas Feld Fink Forst Gross Hafen Hagen Hain Halm Hansen Hecht Heide Holm Horn Ibsen Jansen Kamp Kern
Kiefer Klee Koch Krone Kruse Lang Lind Lund Mandel Marten Meer Moor Nagel Nord Novak Ohlsen Olander Pfeil
Quast Rabe Rask Reh Ried Ritter Roth Sand Sommer Specht Stein Storch Strand Thal Thorn Ulmer Vogt Voss Wald
Weide Wels Winter Wolff Zander Zeller Zorn
"""
_STREETS = """
Acorn Amber Apple Bridge Canal Castle Cedar Chapel Cherry Clover Copper Corn Dove Elder Fern Field Garden Gate
Grove Harbour Hazel Heron Hill Holly Ivy Lake Lantern Lark Linden Maple Market Meadow Mill Moss North Oak
Orchard Park Pear Pine Plum Poplar Quarry River Rose Sage School Silver South Spring Station Stone Swan
Thistle Tower Vine Walnut Water Willow
"""
_CITIES = """
Adelsund Birkenau Brightwater Cedarholm Dornfeld Eastmoor Fallowgate Greenhaven Hollowford Iverby Kestrelton
Larkfield Mapleton Northwick Oldbridge Pinehurst Quillbay Ravensmere Stonebrook Thornleigh Underhill Valewood
Westerlund Yarrowdale
"""
_COUNTRIES = """
Arland Borovia Calderon Dunmark Estmere Fjordland Galdovia Hestria Ilmaria Jorvia
"""
_SENTENCE = """
and the river light over under quiet stone morning paper window little walk through green near far open letter
table winter summer slow bright field road house tree cloud line early late side warm cold round
"""

FIRST_NAMES: Final = tuple(_FIRST_NAMES.split())
LAST_NAMES: Final = tuple(_LAST_NAMES.split())
STREETS: Final = tuple(_STREETS.split())
CITIES: Final = tuple(_CITIES.split())
COUNTRIES: Final = tuple(_COUNTRIES.split())
SENTENCE: Final = tuple(_SENTENCE.split())
WAYS: Final = ("Street", "Road", "Lane", "Way", "Square", "Row")
TRADES: Final = ("Works", "Trading", "Foods", "Logistics", "Textiles", "Optics", "Studio", "Partners", "Tools", "Press")
FORMS: Final = ("Ltd", "Inc", "GmbH", "AG", "Co")
DOMAINS: Final = ("example.com", "example.net", "example.org")
