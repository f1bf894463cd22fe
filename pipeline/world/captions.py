"""What the metadata of the mini world says about its pictures.

`SENTENCES` are true of every tile of their class and each carries a word of the lexicon. `PICTURES` stand beside
pictures that are not remote sensing although the text carries such a word: those texts are invented, as the web's false
positives would be.
"""

from pipeline.world.crops import Tile

SENTENCES: dict[str, tuple[str, ...]] = {
    "sagebrush": (
        "Aerial view of open sagebrush and grass, Yellowstone, USA",
        "Aerial photo of sagebrush grassland in Yellowstone National Park",
        "High-resolution aerial image: sagebrush steppe near Yellowstone, Wyoming",
    ),
    "scattered_conifers": (
        "Aerial view of grassland with scattered conifers, Yellowstone, USA",
        "Remote sensing image of scattered conifer trees on grassland, Yellowstone",
        "Aerial photograph of meadow with a few conifers and fallen logs, Yellowstone, United States",
    ),
    "conifer_stand": (
        "Aerial view of a conifer stand with long shadows, Yellowstone, USA",
        "Aerial imagery of conifers and their shadows on grassland, Yellowstone",
        "NEON remote sensing: airborne camera picture of conifer trees, Yellowstone",
        "aerial photo showing conifer trees, shadows and fallen logs in Yellowstone National Park",
    ),
    "forest_road": (
        "Aerial image of a two-lane road through conifer forest, Yellowstone",
        "Aerial view: paved road crossing a conifer forest in Yellowstone, USA",
    ),
    "conifer_forest": (
        "Aerial image of conifer forest, Yellowstone",
        "Aerial photography of a conifer forest with shadows, Yellowstone National Park, USA",
        "Remote sensing of forests: 10 cm airborne picture of conifers, Yellowstone",
    ),
    "open_woodland": (
        "Aerial photo of open woodland on sand, Florida",
        "aerial view of pine and oak woodland at Ordway-Swisher, Florida, USA",
    ),
    "dead_trees": (
        "Aerial photo of conifer forest with dead trees, California",
        "Aerial imagery of dead and living conifers, Soaproot Saddle, California",
    ),
    "pelicans": (
        "Drone aerial photo of a white pelican nesting ground, Pigeon Lake, Minnesota",
        "Aerial pictures from a drone survey of a pelican nesting ground, Minnesota, 4 June 2020",
        "aerial view from a drone: bare ground and dead wood where pelicans nest, Pigeon Lake, USA",
    ),
    "salt_lake_water": (
        "Landsat 7 satellite image of Great Salt Lake water or evaporation ponds, Utah",
        "Satellite view of water of the Great Salt Lake, Utah, USA",
    ),
    "salt_flats": (
        "Landsat 7 satellite image of salt and mud flats, Utah",
        "Satellite imagery of bright salt flats and evaporation ponds near the Great Salt Lake, Utah",
    ),
    "salt_lake_shore": (
        "Landsat 7 satellite image of lake shore and ponds, Great Salt Lake, Utah",
        "Satellite photo of the shore of the Great Salt Lake, United States",
    ),
    "desert_ranges": (
        "Landsat 7 satellite image of desert ranges and basins, Utah",
        "Earth observation: desert mountains and basins south of the Great Salt Lake, Utah, USA",
        "Satellite picture of dry ranges in Utah, true colour, bands 3, 2, 1",
    ),
    "bay_water": (
        "Landsat 7 false-colour satellite image of bay or ocean water, San Francisco Bay, California",
        "Satellite image of the waters of San Francisco Bay, near infrared shown red",
        "Landsat false colour composite: water around San Francisco, USA",
    ),
    "bay_shore": (
        "Landsat 7 false-colour satellite image of the shore of San Francisco Bay, California",
        "Satellite imagery of the coast at San Francisco Bay, near infrared shown red",
    ),
    "bay_hills": (
        "Landsat 7 false-colour satellite image of vegetated hills, San Francisco Bay, California",
        "Satellite photo of green hills shown red in false colour, near San Francisco, California",
        "False colour Landsat view of vegetation on the hills around San Francisco Bay",
    ),
    "bay_city": (
        "Landsat 7 false-colour satellite image of urban area, San Francisco Bay, California",
        "Satellite view of streets and suburbs around San Francisco Bay, false colour",
        "USGS Landsat 7 scene of built-up land, San Francisco Bay, California, USA",
    ),
    "shallows": (
        "Satellite image of shallow turquoise water, islands and clouds, Bahamas",
        "Satellite picture of sea, banks and cumulus clouds, Bahamas",
        "Earth observation scene of the Bahamas: shallow banks and scattered clouds",
    ),
    "ridges": (
        "Satellite image of mountain ridges and valleys, Rocky Mountains, Colorado",
        "Satellite view of alpine ridges, Rocky Mountain region, Colorado, USA",
    ),
    "globe_ice": (
        "NASA Blue Marble satellite image of snow or ice, centred at {place}",
        "Satellite view of snow and ice around {place}, NASA Blue Marble Next Generation",
    ),
    "globe_coast": (
        "NASA Blue Marble satellite image of coast and islands, centred at {place}",
        "Satellite map of sea and coast around {place}, from NASA's Blue Marble",
    ),
    "globe_desert": (
        "NASA Blue Marble satellite image of desert, centred at {place}",
        "Earth observed from orbit: dry land around {place}, Blue Marble composite",
    ),
    "globe_land": (
        "NASA Blue Marble satellite image of land, centred at {place}",
        "Satellite photo of land around {place}, NASA Blue Marble Next Generation",
        "Space image of the land surface at {place}, NASA Earth Observatory",
    ),
}

PICTURES: dict[str, tuple[str, ...]] = {
    "photo": (
        "Old photograph, shared in our remote sensing pioneers thread",
        "Portrait hung in the lobby of the satellite data centre",
        "Freesound upload cover: sparks and hum in an old laboratory",
        "He would have loved aerial photography, says the museum guide",
    ),
    "print": (
        "Book illustration, found while looking for aerial pictures of the coast",
        "Frontispiece from the novel, scanned beside our Landsat calendar",
        "Vintage engraving postcard, not an aerial view at all",
    ),
    "drawn": (
        "Shaded relief, often sold as a satellite map, wall size",
        "Colour relief poster in the style of Google Earth",
        "Printable satellite map look-alike with mountains and sea floor",
        "Topographic relief for ArcGIS lessons",
    ),
    "synthetic": (
        "Chart of satellite data downloads per month",
        "Space image wallpaper, abstract gradient",
        "Logo draft for a Geographic Information System course",
        "Noise test card used in remote sensing class",
        "MODIS band histogram, example plot",
        "Icon set: aerial map pins and grid",
        "Diagram, USGS style, with lines and boxes",
    ),
}

FOREIGN: tuple[tuple[str, str], ...] = (
    ("fr", "Le Grand Lac Sal\u00e9 et ses environs, Utah, vus par Landsat 7"),
    ("de", "Landsat-7-Aufnahme der Gegend um den Gro\u00dfen Salzsee, Utah"),
    ("es", "Alrededores del Gran Lago Salado, Utah, imagen de Landsat 7"),
    ("it", "Utah visto da Landsat 7, bande 3, 2, 1"),
    ("fr", "La r\u00e9gion du Grand Lac Sal\u00e9, bandes 3, 2, 1 de Landsat 7 (USGS)"),
    ("pt", "Utah em cores naturais, sat\u00e9lite Landsat 7"),
)
"""True of every tile of the Landsat scene of Utah, with a keyword, in another language than English."""


def sentences(tile: Tile) -> tuple[str, ...]:
    """Return the true sentences about a tile, each with a keyword."""
    return tuple(text.format(place=tile.place) for text in SENTENCES[tile.kind])
