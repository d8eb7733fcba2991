"""Names and colours of the classes of each dataset, and the label of ignored pixels."""

import colorsys

DRIVING = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign"),
    *("vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train"),
    *("motorcycle", "bicycle"),
)
"""The 19 classes of Cityscapes and BDD100K in the order of their train ids."""

CAMVID = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
    *("pedestrian", "bicyclist"),
)
"""The 11 classes of CamVid in the version of SegNet."""

PASCAL = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The 21 classes of PASCAL VOC, in the order of their ids."""

_SCENE_PARSE = """
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
    person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf,
    house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub,
    railing, cushion, base, box, column, signboard, chest of drawers, counter, sand, sink,
    skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
    screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill,
    bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar,
    arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth,
    television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman,
    bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything,
    swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food,
    step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket,
    sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate,
    monitor, bulletin board, shower, radiator, glass, clock, flag
"""
SCENE_PARSE = tuple(name.strip() for name in _SCENE_PARSE.split(","))
"""The 150 classes of ADE20K's scene parsing benchmark, in the order of `objectInfo150.txt`."""

_DRIVING_COLOURS = (
    *((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153)),
    *((153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152)),
    *((70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100)),
    *((0, 80, 100), (0, 0, 230), (119, 11, 32)),
)
_CAMVID_COLOURS = (
    *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222)),
    *((128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
)
GOLDEN_RATIO = 0.618034


def class_colours(class_names: tuple[str, ...]) -> list[tuple[int, int, int]]:
    """Return one RGB colour of 0 to 255 for each class; black is reserved for ignored pixels.

    `DRIVING` has the colours of Cityscapes and `CAMVID` those of SegNet. Other classes are spread
    over the hues, with distant hues for consecutive classes.
    """
    for known, own in ((DRIVING, _DRIVING_COLOURS), (CAMVID, _CAMVID_COLOURS)):
        if class_names == known:
            return [*own]
    colours = []
    for number in range(len(class_names)):
        hue = number * GOLDEN_RATIO % 1
        value = (1.0, 0.75, 0.5)[number % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.45 + 0.5 * (number % 2), value)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours


IGNORE = 255
"""Label of pixels that losses and metrics ignore."""
