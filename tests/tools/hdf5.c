/* SPDX-License-Identifier: Apache-2.0 */
/* Makes and shows HDF5 files, for tests in python, whose standard library cannot.
 *
 *   test_hdf5 make FILE NAME TYPE CHUNK_ROWS DIM...
 *     adds a dataset, and the groups it is in, with the numbers on stdin; TYPE f4, f8, i4 or u1;
 *     CHUNK_ROWS 0: none, else deflated chunks
 *   test_hdf5 show FILE NAME
 *     prints its shape in one line, then its numbers
 *   test_hdf5 list FILE
 *     prints the names of all datasets */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static hid_t type_named(const char *name) {
    return !strcmp(name, "f4")   ? H5T_IEEE_F32LE
           : !strcmp(name, "f8") ? H5T_IEEE_F64LE
           : !strcmp(name, "i4") ? H5T_STD_I32LE
           : !strcmp(name, "u1") ? H5T_STD_U8LE
                                 : -1;
}

static int make(int argc, char **argv) {
    hsize_t dims[H5S_MAX_RANK], chunk[H5S_MAX_RANK], count = 1;
    int axes = argc - 6;
    if (axes < 0 || axes > H5S_MAX_RANK)
        return 2;
    for (int i = 0; i < axes; i++)
        count *= dims[i] = chunk[i] = strtoull(argv[6 + i], NULL, 10);
    double *values = malloc((count + 1) * sizeof *values);
    for (hsize_t i = 0; i < count; i++)
        if (scanf("%lf", &values[i]) != 1)
            return 2;
    hid_t file = access(argv[2], F_OK) ? H5Fcreate(argv[2], H5F_ACC_EXCL, H5P_DEFAULT, H5P_DEFAULT)
                                       : H5Fopen(argv[2], H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t list = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(axes, dims, NULL);
    if (atoi(argv[5]) > 0) {
        chunk[0] = strtoull(argv[5], NULL, 10);
        H5Pset_chunk(list, axes, chunk);
        H5Pset_deflate(list, 6);
    }
    hid_t link = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(link, 1);
    hid_t data = H5Dcreate2(file, argv[3], type_named(argv[4]), space, link, list, H5P_DEFAULT);
    int failed = H5Dwrite(data, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0;
    free(values);
    H5Dclose(data);
    H5Sclose(space);
    H5Pclose(list);
    H5Pclose(link);
    return H5Fclose(file) < 0 || failed;
}

static int show(const char *path, const char *name) {
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT),
          data = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(data);
    hsize_t dims[H5S_MAX_RANK];
    int axes = H5Sget_simple_extent_dims(space, dims, NULL);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    if (count < 0)
        return 1;
    double *values = malloc(((size_t)count + 1) * sizeof *values);
    if (H5Dread(data, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        return 1;
    for (int i = 0; i < axes; i++)
        printf("%s%llu", i ? " " : "", (unsigned long long)dims[i]);
    printf("\n");
    for (hssize_t i = 0; i < count; i++)
        printf("%.9g\n", values[i]);
    free(values);
    H5Sclose(space);
    H5Dclose(data);
    H5Fclose(file);
    return 0;
}

static herr_t print_name(hid_t object, const char *name, const H5O_info_t *info, void *context) {
    (void)object;
    (void)context;
    if (info->type == H5O_TYPE_DATASET)
        printf("%s\n", name);
    return 0;
}

int main(int argc, char **argv) {
    if (argc >= 6 && !strcmp(argv[1], "make"))
        return make(argc, argv);
    if (argc == 4 && !strcmp(argv[1], "show"))
        return show(argv[2], argv[3]);
    if (argc != 3 || strcmp(argv[1], "list") != 0)
        return 2;
    hid_t file = H5Fopen(argv[2], H5F_ACC_RDONLY, H5P_DEFAULT);
    return file < 0 || H5Ovisit(file, H5_INDEX_NAME, H5_ITER_INC, print_name, NULL) < 0 ||
           H5Fclose(file) < 0;
}
